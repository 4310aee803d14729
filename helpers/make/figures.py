"""Redraw every figure from data/results, without a model: `make figures`."""

from helpers import common
from helpers.plots import redraw


def main():
    files = sorted((common.OUT / "data" / "results").glob("**/figures/*.json"))
    for file in files:
        redraw(file)
    print(f"{len(files)} figures drawn again from data/results into figures/")


if __name__ == "__main__":
    main()
