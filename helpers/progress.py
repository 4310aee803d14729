"""One progress bar for everything that takes longer than a few seconds."""
import os
import sys

from tqdm import tqdm


def track(items, desc, total=None):
    """Iterate `items` under a bar on a terminal or in JupyterLab; silent under papermill, CI and in files."""
    quiet = os.environ.get("SP_QUIET") or os.environ.get("CI")
    interactive = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ
    return tqdm(items, desc=desc, total=total, leave=False, disable=bool(quiet) or not interactive)
