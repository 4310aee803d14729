"""The widget that draws lanes of tokens, and the view around it.

Where nobody can move a slider (papermill, nbval, a code host) a View is static HTML and no widget is made; in
JupyterLab the same call shows the widget. Text reaches the page as text only (cells.py, strips.js).
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Callable

import anywidget
import ipywidgets as ui
import traitlets


class Strips(anywidget.AnyWidget):
    """Lanes of tokens, a picture and a status line, drawn by views.js from plain data."""

    _esm = Path(__file__).with_name("strips.js")
    _css = Path(__file__).with_name("strips.css")
    lanes = traitlets.List().tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    failed = traitlets.Bool(False).tag(sync=True)
    beside = traitlets.Bool(False).tag(sync=True)  # lanes in two columns
    below = traitlets.Bool(False).tag(sync=True)  # the picture under the lanes
    follow = traitlets.Bool(False).tag(sync=True)  # keep the end of a growing lane in sight

    def show(self, state):
        """Draw what state() says, nothing where it says None; an error is a sentence in the view."""
        try:
            new = state()
            new = {} if new is None else {"status": "", "failed": False} | new
        except Exception as error:
            told = isinstance(error, (ValueError, RuntimeError, OSError, MemoryError))
            kind = "" if told else f"{type(error).__name__}: "
            new = {"status": f"This did not work: {kind}{error}", "failed": True}
        with self.hold_sync():
            for name, value in new.items():
                setattr(self, name, value)


def interactive():
    """Whether somebody can move sliders: a kernel that Jupyter, VS Code or Colab started, and no batch run."""
    started = any(
        name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")
    )
    return started and not os.environ.get("SP_QUIET")


@dataclass
class View:
    """What a call shows: `html` for everybody, and `widget`, made when it is first asked for."""

    html: str
    build: Callable[[], ui.Widget]

    @cached_property
    def widget(self):
        return self.build()

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {
            "text/html": self.html,
            "text/plain": "a view with sliders: run this cell in JupyterLab",
        }
        return bundle | self.widget._repr_mimebundle_() if interactive() else bundle
