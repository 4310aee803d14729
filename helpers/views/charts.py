"""Small charts of the views as SVG text: panels in a row, dark on white so that they read in any theme."""

import math
from html import escape

import pandas as pd
from matplotlib.ticker import MaxNLocator

from helpers.stats import pareto
from helpers.views.cells import SPEAKERS

ORANGE, BLUE, GREY = "#d55e00", "#0072b2", "#767676"


def line(name, colour, x, y, low=(), high=(), joined=True):
    """One series of a panel; gaps are NaN. low, high: bounds of a bar at each point."""
    return {
        "name": name,
        "colour": colour,
        "x": list(x),
        "y": list(y),
        "low": list(low),
        "high": list(high),
        "joined": joined,
    }


def panel(title, series, *, x_label="", x_names=(), cursor=None, point=None, level=None):
    """One small chart. cursor: an x to mark by a vertical line; point: (x, y) to circle; level: a y to mark."""
    return {
        "title": title,
        "series": series,
        "x_label": x_label,
        "x_names": list(x_names),
        "cursor": cursor,
        "point": point,
        "level": level,
    }


def chart(panels, width=270, height=210):
    """Panels in a row as one SVG document, dark on white so that it reads in any theme."""
    body = "".join(
        f'<g transform="translate({i * width},0)">{_panel(p, width, height)}</g>'
        for i, p in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height}" width="{width * len(panels)}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>'
    )


def _panel(p, width, height):
    """The inside of one chart."""
    left, top, right, bottom = 46, 24, width - 12, height - 40
    xs = [v for s in p["series"] for v in s["x"]]
    ys = [v for s in p["series"] for k in ("y", "low", "high") for v in s[k] if v == v]
    ys += [] if p["level"] is None else [p["level"]]
    x0, x1 = (min(xs) - 0.3, max(xs) + 0.3) if p["x_names"] else _ends(xs)
    y0, y1 = _ends(ys)
    X = lambda v: left + (v - x0) / (x1 - x0) * (right - left)  # noqa: E731
    Y = lambda v: bottom - (v - y0) / (y1 - y0) * (bottom - top)  # noqa: E731
    out = [
        f'<text x="{(left + right) / 2}" y="15" text-anchor="middle" font-weight="bold">{escape(p["title"])}</text>',
        f'<text x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">{escape(p["x_label"])}</text>',
        f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#555"/>',
    ]
    for v, name in (
        enumerate(p["x_names"]) if p["x_names"] else ((t, f"{t:g}") for t in _ticks(x0, x1))
    ):
        out.append(
            f'<text x="{X(v):.1f}" y="{bottom + 14}" text-anchor="middle">{escape(name)}</text>'
        )
    for v in _ticks(y0, y1):
        out.append(
            f'<text x="{left - 5}" y="{Y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
            f'<path d="M{left} {Y(v):.1f}H{right}" stroke="#e6e6e6"/>'
        )
    if p["cursor"] is not None:
        out.append(
            f'<path class="cursor" d="M{X(p["cursor"]):.1f} {top}V{bottom}" stroke="#000" stroke-dasharray="4 3"/>'
        )
    if p["level"] is not None:
        out.append(
            f'<path d="M{left} {Y(p["level"]):.1f}H{right}" stroke="#555" stroke-dasharray="2 3"/>'
        )
    for i, s in enumerate(p["series"]):
        out.append(_series(s, X, Y))
        if len(p["series"]) > 1:
            out.append(
                f'<text x="{right - 4}" y="{top + 12 + 13 * i}" text-anchor="end" fill="{s["colour"]}" '
                f'font-weight="bold">{escape(s["name"])}</text>'
            )
    if p["point"]:
        out.append(
            f'<circle class="point" cx="{X(p["point"][0]):.1f}" cy="{Y(p["point"][1]):.1f}" r="8" '
            'fill="none" stroke="#000" stroke-width="2"/>'
        )
    return "".join(out)


def _series(s, X, Y):
    """Bars, line and points of one series; a line is broken at a gap."""
    out, path, gap = [], "", True
    for i, (x, y) in enumerate(zip(s["x"], s["y"])):
        if not (y == y and math.isfinite(y)):
            gap = True
            continue
        path += f"{'M' if gap else 'L'}{X(x):.1f} {Y(y):.1f}"
        gap = False
        if s["low"]:
            out.append(
                f'<path d="M{X(x):.1f} {Y(s["low"][i]):.1f}V{Y(s["high"][i]):.1f}" stroke="{s["colour"]}" '
                'stroke-opacity="0.5" stroke-width="3"/>'
            )
        out.append(f'<circle cx="{X(x):.1f}" cy="{Y(y):.1f}" r="3" fill="{s["colour"]}"/>')
    curve = f'<path d="{path}" fill="none" stroke="{s["colour"]}" stroke-width="1.5"/>'
    return (curve if s["joined"] and path else "") + "".join(out)


def _ends(values):
    """An axis that holds all values with some air; one unit wide where they are all the same."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * 0.06 if high - low > 1e-6 else 0.5  # an interval of width 1e-16 is none
    return low - air, high + air


def _ticks(low, high):
    return [float(f"{v:.6g}") for v in MaxNLocator(4).tick_values(low, high) if low <= v <= high]


def sweep(taus, lines, i):
    """Three lines over tau and the Pareto plane, with tau number i marked. lines: {title: one stats.Interval per tau}."""
    x, names = range(len(taus)), [f"{t:g}" for t in taus]
    panels = [
        panel(
            title,
            [
                line(
                    title,
                    ORANGE,
                    x,
                    *([getattr(v, end) for v in values] for end in ("estimate", "low", "high")),
                )
            ],
            x_label="τ, nats",
            x_names=names,
            cursor=i,
        )
        for title, values in lines.items()
    ]
    speed, right = ([v.estimate for v in lines[name]] for name in ("tokens per second", "accuracy"))
    front = pareto(pd.DataFrame({"speed": speed, "right": right}), "speed", "right").sort_values(
        "speed"
    )
    plane = panel(
        "accuracy over tokens per second",
        [
            line("all τ", GREY, speed, right, joined=False),
            line("Pareto front", BLUE, front.speed, front.right),
        ],
        x_label="tokens per second",
        point=(speed[i], right[i]),
    )
    return chart([*panels, plane])


def routing(rows, names, level):
    """The entropies along a routed answer, one line for each of `names` that is known. rows: its trace."""
    colours = {
        name: GREY if name == "draft" else SPEAKERS[i % len(SPEAKERS)][0]
        for i, name in enumerate(names)
    }
    series = [
        line(name, colours[name], rows.position, rows[f"H_{name}"])
        for name in names
        if f"H_{name}" in rows and rows[f"H_{name}"].notna().any()
    ]
    return chart(
        [
            panel(
                "entropy of each model, nats", series, x_label="position in the answer", level=level
            )
        ],
        1000,
        240,
    )
