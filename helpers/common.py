"""Where things are, and one progress bar.

SP_OUT moves figures and results, SP_CACHE the cache, SP_MODELS the fetched weights.
SP_RUN names a run with settings of its own: its figures and results get folders inside the pair's.
"""

import os
import sys
from pathlib import Path

from tqdm import tqdm

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


def track(items, desc, total=None):
    """Iterate `items` under a bar on a terminal or in JupyterLab; silent under papermill and CI."""
    quiet = os.environ.get("SP_QUIET") or os.environ.get("CI")
    interactive = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    return tqdm(items, desc=desc, total=total, leave=False, disable=bool(quiet) or not interactive)
