"""Small charts of the views as SVG text: panels in a row, dark on a white card for any theme."""

import math
from dataclasses import dataclass
from html import escape

from matplotlib.ticker import MaxNLocator

from helpers.plots.style import speaker_colours

ORANGE = "#d55e00"
LONGEST_NAME = 20  # characters of a line's name that have room beside a chart


@dataclass(frozen=True)
class Line:
    """One series of a panel; gaps are NaN. low, high: ends of a bar at each point, if any."""

    name: str
    colour: str
    x: list
    y: list
    low: list = ()
    high: list = ()
    joined: bool = True


@dataclass(frozen=True)
class Panel:
    """One small chart.

    x_names: names of x = 0, 1, …, in place of numbers; cursor: an x to mark by a vertical line;
    point: (x, y) to circle and to name; level: a y to mark by a horizontal line, with its name.
    """

    title: str
    lines: list
    x_label: str = ""
    x_names: list = ()
    cursor: float | None = None
    point: tuple | None = None
    level: float | None = None
    level_name: str = ""


# ---- drawing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Where a panel's data lie on the page: from x0, x1, y0, y1 to pixels."""

    width: int
    height: int
    x0: float
    x1: float
    y0: float
    y1: float
    names: float = 0  # pixels for the names of lines, at the right
    left = 46
    top = 24

    @property
    def right(self):
        return self.width - 12 - self.names

    @property
    def bottom(self):
        return self.height - 40

    def x(self, value):
        share = (value - self.x0) / (self.x1 - self.x0)
        return f"{self.left + share * (self.right - self.left):.1f}"

    def y(self, value, down=0):
        """A height, or the pixels `down` below it."""
        share = (value - self.y0) / (self.y1 - self.y0)
        return f"{self.bottom - share * (self.bottom - self.top) + down:.1f}"


def chart(panels, width=424, height=220, columns=2):
    """Panels in rows as one SVG document.

    width, height: pixels of each; two of 424 are as wide as a notebook's cell at 1280 pixels, so
    that nothing is drawn smaller than it says.
    """
    rows = math.ceil(len(panels) / columns)
    total = width * min(columns, len(panels))
    body = ""
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        inside = _panel(panel, width, height)
        body += f'<g transform="translate({column * width},{row * height})">{inside}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {rows * height}" '
        f'width="{total}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" rx="8" fill="#fff"/>{body}</svg>'
    )


def _panel(panel, width, height):
    """The inside of one chart."""
    frame = _frame(panel, width, height)
    if not any(math.isfinite(y) for line in panel.lines for y in line.y):
        middle = (frame.left + frame.right) / 2
        return _title(panel, frame) + (
            f'<text x="{middle}" y="{height / 2}" text-anchor="middle" fill="#555">'
            "nothing to draw here</text>"
        )
    parts = _axes(panel, frame)
    if panel.cursor is not None:
        parts.append(
            f'<path class="cursor" d="M{frame.x(panel.cursor)} {frame.top}V{frame.bottom}" '
            'stroke="#000" stroke-dasharray="4 3"/>'
        )
    if panel.level is not None:
        parts.append(
            f'<path d="M{frame.left} {frame.y(panel.level)}H{frame.right}" '
            'stroke="#555" stroke-dasharray="2 3"/>'
        )
    if panel.level is not None and panel.level_name:
        beside = frame.right + 4
        parts.append(_label(beside, frame.y(panel.level, down=4), panel.level_name, "start"))
    for i, line in enumerate(panel.lines):
        parts.append(_line(line, frame))
        if len(panel.lines) > 1 and line.name:
            parts.append(
                f'<text x="{frame.right + 8}" y="{frame.top + 12 + 16 * i}" '
                f'fill="{line.colour}" font-weight="bold">{escape(line.name)}</text>'
            )
    if panel.point:
        parts.append(_point(panel.point, frame))
    return "".join(parts)


def _point(point, frame):
    """A circle and its height in numbers, on the side where there is room."""
    x, y = point
    is_right = (x - frame.x0) / (frame.x1 - frame.x0) > 0.7
    beside = float(frame.x(x)) + (-14 if is_right else 14)
    is_low = (y - frame.y0) / (frame.y1 - frame.y0) < 0.2
    height = frame.y(y, down=-8 if is_low else 18)
    return (
        f'<circle class="point" cx="{frame.x(x)}" cy="{frame.y(y)}" r="8" '
        'fill="none" stroke="#000" stroke-width="2"/>'
    ) + _label(beside, height, f"{y:.3g}", "end" if is_right else "start")


def _label(x, y, text, anchor):
    """Words in the chart, with a white rim, so that lines behind them do not cross them out."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="bold" stroke="#fff" '
        f'stroke-width="4" paint-order="stroke">{escape(text)}</text>'
    )


def _title(panel, frame):
    """The name of a panel, above it."""
    middle = (frame.left + frame.right) / 2
    return (
        f'<text x="{middle}" y="15" text-anchor="middle" font-weight="bold">'
        f"{escape(panel.title)}</text>"
    )


def _frame(panel, width, height):
    """Axes that hold all of a panel's data."""
    x = [value for line in panel.lines for value in line.x]
    y = [] if panel.level is None else [panel.level]
    for line in panel.lines:
        for values in (line.y, line.low, line.high):
            y += [value for value in values if not math.isnan(value)]
    x0, x1 = (min(x) - 0.3, max(x) + 0.3) if panel.x_names else _ends(x)
    y0, y1 = _ends(y)
    beside = [panel.level_name]
    if len(panel.lines) > 1:  # one line alone is named by the panel's title
        beside += [line.name for line in panel.lines]
    longest = max(map(len, beside))
    names = 8 + 8 * min(longest, LONGEST_NAME) if longest else 0
    return Frame(width, height, x0, x1, y0, y1, names)


def _axes(panel, frame):
    """Title, axes, and ticks with a grid of horizontal lines."""
    middle = (frame.left + frame.right) / 2
    parts = [
        _title(panel, frame),
        f'<text x="{middle}" y="{frame.height - 6}" text-anchor="middle">'
        f"{escape(panel.x_label)}</text>",
        f'<path d="M{frame.left} {frame.top}V{frame.bottom}H{frame.right}" '
        'fill="none" stroke="#555"/>',
    ]
    ticks = list(enumerate(panel.x_names))
    if not ticks:
        ticks = [(tick, f"{tick:g}") for tick in _ticks(frame.x0, frame.x1)]
    for x, name in ticks:
        parts.append(
            f'<text x="{frame.x(x)}" y="{frame.bottom + 14}" text-anchor="middle">'
            f"{escape(name)}</text>"
        )
    for y in _ticks(frame.y0, frame.y1):
        parts.append(
            f'<text x="{frame.left - 5}" y="{frame.y(y, down=4)}" text-anchor="end">{y:g}</text>'
            f'<path d="M{frame.left} {frame.y(y)}H{frame.right}" stroke="#e6e6e6"/>'
        )
    return parts


def _line(line, frame):
    """Line, bars and points of one series; the line is broken at a gap."""
    path = ""
    marks = ""
    pen_is_up = True
    for i, (x, y) in enumerate(zip(line.x, line.y)):
        if not math.isfinite(y):
            pen_is_up = True
            continue
        path += f"{'M' if pen_is_up else 'L'}{frame.x(x)} {frame.y(y)}"
        pen_is_up = False
        if line.low:
            marks += (
                f'<path d="M{frame.x(x)} {frame.y(line.low[i])}V{frame.y(line.high[i])}" '
                f'stroke="{line.colour}" stroke-opacity="0.5" stroke-width="3"/>'
            )
        marks += f'<circle cx="{frame.x(x)}" cy="{frame.y(y)}" r="3" fill="{line.colour}"/>'
    if not (line.joined and path):
        return marks
    return f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="1.5"/>{marks}'


def _ends(values):
    """An axis that holds all values with some air; one unit wide where they are all the same."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    # values that differ by rounding alone are the same
    air = (high - low) * 0.06 if high - low > 1e-6 else 0.5
    return low - air, high + air


def _ticks(low, high):
    """Round numbers between the two ends of an axis."""
    inside = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return [float(f"{tick:.6g}") for tick in inside]


# ---- the views' charts -------------------------------------------------------------------------


def routing(rows, names, level):
    """The entropies along a routed answer, one line for each model that is known.

    rows: its trace; names: the models that may speak, "draft" first; level: the gate, nats, or
    None.
    """
    colours = speaker_colours(names)
    known = [name for name in names if f"H_{name}" in rows and rows[f"H_{name}"].notna().any()]
    lines = [Line(name, colours[name], rows.position, rows[f"H_{name}"]) for name in known]
    panel = Panel(
        "entropy of each model, nats",
        lines,
        x_label="position in the answer",
        level=level,
        level_name="τ",
    )
    return chart([panel], width=848, height=240)
