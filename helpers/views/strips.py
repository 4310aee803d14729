"""The widget that draws lanes of tokens, and the view around it.

Where nobody can move a slider (papermill, nbval, a code host) a View is static HTML and no widget
is made; in JupyterLab the same call shows the widget. Text reaches the page as text only
(static.py, strips.js).
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Callable

import anywidget
import ipywidgets as ui
import traitlets

LABS = ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG")  # set where a lab started the kernel
ADVICE = "a view with sliders: in JupyterLab, Run > Run All Cells first"
EXPECTED = (ValueError, RuntimeError, OSError, MemoryError)  # their messages are sentences


class Strips(anywidget.AnyWidget):
    """Lanes of tokens, a picture and a status line, drawn by strips.js from plain data."""

    _esm = Path(__file__).with_name("strips.js")
    _css = Path(__file__).with_name("strips.css")
    lanes = traitlets.List().tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    failed = traitlets.Bool(False).tag(sync=True)
    old = traitlets.Bool(False).tag(sync=True)  # whether a control has moved since these lanes
    beside = traitlets.Bool(False).tag(sync=True)  # lanes in two columns
    below = traitlets.Bool(False).tag(sync=True)  # the picture under the lanes
    follow = traitlets.Bool(False).tag(sync=True)  # keep the end of a growing lane in sight

    def show(self, state):
        """Draw the traits that state() returns, none where it returns None.

        An error becomes a sentence in the view.
        """
        try:
            traits = state()
            if traits is not None:
                traits = {"status": "", "failed": False, "old": False} | traits
        except Exception as error:
            kind = "" if isinstance(error, EXPECTED) else f"{type(error).__name__}: "
            traits = {"status": f"This did not work: {kind}{error}", "failed": True}
        with self.hold_sync():
            for name, value in (traits or {}).items():
                setattr(self, name, value)


def interactive():
    """Whether somebody can move sliders: in a lab's kernel, unless it runs a batch."""
    return any(name in os.environ for name in LABS) and not os.environ.get("SP_QUIET")


@dataclass
class View:
    """What a call shows: `html` for everybody, and `widget`, made when it is first asked for."""

    html: str
    build: Callable[[], ui.Widget]

    @cached_property
    def widget(self):
        return self.build()

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.html, "text/plain": ADVICE}
        return bundle | self.widget._repr_mimebundle_() if interactive() else bundle
