"""Where things are. SP_OUT moves figures and results, SP_CACHE the cache, SP_MODELS the fetched weights.

SP_RUN names a run with settings of its own: its figures and results get folders inside the pair's.
"""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
OUT = Path(os.environ.get("SP_OUT", ROOT))
CACHE = Path(os.environ.get("SP_CACHE", DATA / "cache"))
MODELS = Path(os.environ.get("SP_MODELS", DATA / "models"))


def figures(pair):
    """Folder of a pair's figures, made when it is not there."""
    return _made(OUT / "figures" / pair / os.environ.get("SP_RUN", ""))


def results(pair):
    """Folder of a pair's published results, made when it is not there."""
    return _made(OUT / "data" / "results" / pair / os.environ.get("SP_RUN", ""))


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder
