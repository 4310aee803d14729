"""Where things are. SP_OUT moves figures and results, SP_CACHE the cache, SP_MODELS the fetched weights."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
OUT = Path(os.environ.get("SP_OUT", ROOT))
CACHE = Path(os.environ.get("SP_CACHE", DATA / "cache"))
MODELS = Path(os.environ.get("SP_MODELS", DATA / "models"))


def figures(pair):
    """Folder of a pair's figures, made when it is not there."""
    return _made(OUT / "figures" / pair)


def results(pair):
    """Folder of a pair's published results, made when it is not there."""
    return _made(OUT / "data" / "results" / pair)


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder
