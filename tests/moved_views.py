"""In a kernel that imports this, a shown view makes its widget and has every control moved once.

Where nobody can move a slider no widget is made, and a view says an error of its own in a sentence:
without this, no execution of a notebook would end on either.
"""

import threading

import ipywidgets as ui

from helpers.views import strips

said = []  # the sentences of views that did not work


def controls(widget):
    """Every slider and every menu of a view."""
    for child in getattr(widget, "children", ()):
        yield from controls(child)
    if isinstance(widget, (ui.FloatSlider, ui.IntSlider, ui.Dropdown)):
        yield widget


def move(control):
    """To another value and back. A menu may have been filled anew meanwhile, as another moved."""
    if isinstance(control, ui.Dropdown):
        before = control.index
        control.index = (before + 1) % len(control.options)
        control.index = before
    else:
        before = control.value
        control.value = control.min if before == control.max else control.max
        control.value = before


def moved(view):
    """Move every control of a view, and wait for what that has started."""
    begun = set(threading.enumerate())
    said.clear()
    for control in controls(view.widget):
        move(control)
    for thread in set(threading.enumerate()) - begun:
        thread.join()
    if said:
        raise RuntimeError(said[0])


def pretend_a_lab():
    """Change the views of this process."""
    draw, bundle = strips.Strips.show, strips.View._repr_mimebundle_

    def show(self, state):
        draw(self, state)
        if self.failed:
            said.append(self.status)

    def _repr_mimebundle_(self, include=None, exclude=None):
        moved(self)
        return bundle(self)

    strips.interactive = lambda: True
    strips.Strips.show = show
    strips.View._repr_mimebundle_ = _repr_mimebundle_


pretend_a_lab()
