"""What if the target were dearer? Speeds and claims about them on a machine of two sliders."""

import math

import ipywidgets as ui
import numpy as np
import pandas as pd

from helpers import ledger
from helpers.plots.costs import KNOWN
from helpers.plots.style import SPARE, assign
from helpers.views import cells, charts, static
from helpers.views.controls import LOOK, control_row
from helpers.views.strips import Strips, View

POINTS = 25  # of a curve
MARKED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # values of c that the charts name
STEEPEST = 0.5  # right end of the slope's slider


def dearer(table, claims, *, c, slope):
    """Speed-ups and claims on a machine whose draft costs c and whose verifying has a slope.

    table: of ledger.speed_ups over ledger.straight(): nothing is counted or read again, so that a
    slider answers while it is dragged. claims: ledger.Claims; c, slope: this machine's, where the
    sliders begin.
    """
    begin = state(table, claims, c, slope)

    def build():
        canvas = Strips()
        sliders = _sliders(c, slope)

        def redraw(*_):
            canvas.show(lambda: state(table, claims, *(slider.value for slider in sliders)))

        for slider in sliders:
            slider.observe(redraw, "value")
        redraw()
        return ui.VBox([control_row(sliders), canvas])

    page = static.page(
        f"What if the target cost more, beside the draft? Here c = {c:.3g}, slope = {slope:.3g}",
        begin["lanes"],
        begin["picture"],
        begin["alt"],
        static.numbers(elsewhere(table, claims, c, slope), 0),
    )
    return View(page, build)


def _sliders(c, slope):
    """The two of them; they report while they are dragged."""
    ends = math.log10(ledger.COSTS[0]), math.log10(ledger.COSTS[-1])
    costs = ui.FloatLogSlider(
        c,
        min=ends[0],
        max=ends[1],
        step=0.01,
        readout_format=".3g",
        description="c",
        tooltip="the draft's forward ÷ the target's",
        **LOOK,
    )
    slopes = ui.FloatSlider(
        slope,
        min=0,
        max=max(STEEPEST, slope),
        step=0.005,
        readout_format=".3f",
        description="slope",
        tooltip="what each further token costs to verify, in forwards of the target",
        **LOOK,
    )
    return [costs, slopes]


def state(table, claims, c, slope):
    """What the view shows at c and slope: traits of Strips."""
    x = c + slope
    rows = _speeds(table, x)
    speeds = "; ".join(
        f"{method} {ratio:.2f} [{low:.2f}, {high:.2f}] at γ = {gamma}"
        for method, gamma, ratio, low, high in rows
    )
    words = "; ".join(f"{claim}: {ledger.word_at(table, claim, x)}" for claim in claims)
    title = f"c = {c:.3g}, slope = {slope:.3g}: a drafted token costs {x:.3g} of the target's"
    return {
        "lanes": [cells.lane(title, f"times the target alone: {speeds}"), cells.lane("", words)],
        "picture": _picture(table, c, slope),
        "alt": f"speed-up over the target alone; {speeds}",
    }


def _methods(table):
    """The methods that the table compares with the target alone."""
    return list(dict.fromkeys(table.method[table.baseline == ledger.ALONE]))


def _speeds(table, x):
    """(method, γ, speed-up, low, high) of every method at x, a number or an array."""
    return [(name, *ledger.at(table, name, ledger.ALONE, x)) for name in _methods(table)]


def _picture(table, c, slope):
    """Speed-up and best γ over c at this slope, with c marked, as SVG."""
    ends = ledger.COSTS[0], ledger.COSTS[-1]
    costs = np.geomspace(*ends, POINTS)
    rows = _speeds(table, costs + slope)
    looks = assign(_methods(table), KNOWN, SPARE)
    panels = []
    for title, column in (("speed-up over the target alone", 2), ("best γ", 1)):
        lines = []
        for row in rows:
            colour = looks[row[0]].colour
            name = row[0] if column == 2 else ""  # lines at the top leave no room for names
            lines.append(charts.Line(name, colour, range(POINTS), list(row[column])))
        panels.append(
            charts.Panel(
                title,
                lines,
                x_label="c, the draft's forward ÷ the target's",
                x_names=_names(costs),
                cursor=float(np.interp(math.log(c), np.log(costs), range(POINTS))),
                level=1.0 if column == 2 else None,
            )
        )
    return charts.chart(panels, width=430, height=260)


def _names(costs):
    """Names below a chart's points: of those nearest to the values that are marked."""
    names = [""] * len(costs)
    for value in MARKED:
        names[int(np.abs(np.log(costs / value)).argmin())] = f"{value:g}"
    return names


def elsewhere(table, claims, c, slope):
    """The numbers at this machine's c and at others, for readers without a slider."""
    lines = []
    for cost in (c, 0.01, 0.05, 0.2, 0.5):
        line = {"c": f"{cost:.3g}"}
        for method, gamma, ratio, _, _ in _speeds(table, cost + slope):
            line[method] = f"{ratio:.2f} × (γ = {gamma})"
        for claim in claims:
            line[str(claim)] = ledger.word_at(table, claim, cost + slope)
        lines.append(line)
    return pd.DataFrame(lines)
