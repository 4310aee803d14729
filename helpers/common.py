"""Where things are, and one progress bar.

SP_OUT moves figures and results, SP_CACHE the cache, SP_MODELS the fetched weights.
SP_RUN names a run with settings of its own: its figures and results get folders inside the pair's.
A notebook that is run by hand, in JupyterLab say, writes to such a folder too: LAB.
"""

import errno
import os
import re
import sys
from functools import cache
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
OUT = Path(os.environ.get("SP_OUT") or ROOT).absolute()
CACHE = Path(os.environ.get("SP_CACHE") or DATA / "cache").absolute()
MODELS = Path(os.environ.get("SP_MODELS") or DATA / "models").absolute()
LAB = "lab"  # the run of whoever tries a notebook: the published record stays as it is
# What lies beside the folders of a pair's runs.
TAKEN = ("figures", "notebooks", "advice", LAB)


def _print_anything(*streams):
    """Let what a stream cannot say (γ under LC_ALL=C, say) become a question mark, not an error."""
    for stream in streams:
        if (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf"):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


_print_anything(sys.stdout, sys.stderr)


def figures(pair):
    """Folder of a pair's figures, made when it is not there."""
    return _made(OUT / "figures" / pair / run_name())


def results(pair):
    """Folder of a pair's published results, made when it is not there."""
    return _made(OUT / "data" / "results" / pair / run_name())


def run_name():
    """The name of a run with settings of its own, from SP_RUN; "" for the pair itself.

    `make all` always sets SP_RUN for its kernels: where it is not set, a kernel is run by hand.
    """
    given = os.environ.get("SP_RUN")
    if given is None:
        return LAB if _in_a_kernel() else ""
    return checked_run(given)


def _in_a_kernel():
    """Whether this is a notebook's process."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")


def _cell_number():
    """The number of the cell that runs, in a notebook's process."""
    return sys.modules["IPython"].get_ipython().execution_count


def checked_run(name):
    """A run's name, which is a folder inside its pair's: one that would be another is refused."""
    plain = re.fullmatch(r"(?:\w[\w.-]*)?", name)
    if not plain or name.endswith(".") or name.lower() in TAKEN:
        raise ValueError(
            f"run was {name!r}; a run's name has letters, digits, dots and dashes only, begins "
            f"with a letter or a digit, does not end in a dot, and is not {' or '.join(TAKEN)}"
        )
    return name


def _made(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def cannot_write(file, error):
    """An OSError in one sentence: what could not be written, why, and what to do."""
    why = (error.strerror or str(error)).lower()
    advice = "set SP_OUT and SP_CACHE to folders that can be written"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space; the same command goes on from what is finished"
    return OSError(f"{file} cannot be written ({why}); {advice}")


def track(items, desc, total=None):
    """Iterate `items` under a bar on a terminal or in JupyterLab; silent under papermill and CI."""
    quiet = os.environ.get("SP_QUIET") or os.environ.get("CI")
    in_lab = "JPY_SESSION_NAME" in os.environ
    return tqdm(
        items,
        desc=desc,
        total=total,
        leave=False,
        delay=0.5,  # what is done by then needs no bar
        disable=bool(quiet) or not (sys.stderr.isatty() or in_lab),
        file=_line_of(_cell_number()) if in_lab and _in_a_kernel() else None,
    )


class CellLine:
    """One line below a notebook's cell that bars write to, and which is empty when they are done.

    On the error stream, every bar would leave a line of its own on red ground.
    """

    encoding = "utf-8"  # of the bar's blocks

    def __init__(self):
        self.shown = None

    def write(self, text):
        """Put a bar in place of what stood there; tqdm's moves of the cursor are left out."""
        from IPython.display import display

        text = text.replace("\x1b[A", "").replace("\n", "")
        if not text:
            return
        bundle = {"text/plain": text.strip()}
        if self.shown is None:
            self.shown = display(bundle, raw=True, display_id=True)
        else:
            self.shown.update(bundle, raw=True)

    def flush(self):
        """Nothing waits to be written."""


@cache
def _line_of(cell):
    """The line that all bars of one execution of a cell share."""
    return CellLine()
