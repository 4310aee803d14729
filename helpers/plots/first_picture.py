"""The README's first picture: one answer, written by the strict and by the relaxed rule."""

import textwrap

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle

from helpers.plots.style import LEVELS, SHADES, text_on

EDGE = "#9aa7b5"
REJECTED = "#B00020"
RESCUED = "#C04F00"
RIGHT = "#00704f"
MARKS = {"rejected": ("✗", REJECTED), "rescued": ("★", RESCUED)}
SHOWN = {"\n": "⏎", "<|end|>": "end"}
POINTS = 19  # of the tokens; the words around them are a little smaller
# Lengths below are in widths of one character.
HEIGHT = 1.8
ROW_GAP = 3.3


def two_rules(question, strict, relaxed, right, tau):
    """One answer under both rules, token by token, with the same random numbers.

    strict, relaxed: one row per token with position, text, fate ("kept", "rejected", "rescued",
    "target"), H_q (nats) and p_x, q_x of drafted tokens. right: whether each of the two answers is
    right. tau: the gate of the relaxed rule, nats.
    """
    places = _places([strict, relaxed])
    width = max(left + wide for left, wide in places.values())
    fig, ax = plt.subplots(figsize=(13, 4.7))
    _row(ax, 0, "strict\n(SP)", strict, places, right[0], width)
    _row(ax, -ROW_GAP, "relaxed\n(SP_entropy)", relaxed, places, right[1], width)
    ax.text(
        -11.3, 2.4, textwrap.fill(question, 86), fontsize=POINTS - 2, va="bottom", style="italic"
    )
    _explain_rescue(ax, relaxed, places)
    _key(ax, tau)
    ax.set(xlim=(-11.5, width + 6), ylim=(-ROW_GAP - 7.2, 5))
    ax.axis("off")
    return fig


def _places(answers):
    """Where tokens stand: {(position, whether rejected): (left, width)}, the same in all rows.

    A rejected token stands before the target's token, which took its position.
    """
    widths = {}
    for tokens in answers:
        for token in tokens.itertuples():
            place = token.position, token.fate != "rejected"
            wide = max(1.3, 0.2 + len(SHOWN.get(token.text, token.text)))
            widths[place] = max(wide, widths.get(place, 0))
    places = {}
    left = 0
    for (position, kept), wide in sorted(widths.items()):
        places[position, not kept] = left, wide
        left += wide
    return places


def _row(ax, y, name, tokens, places, right, width):
    """A name, an answer's tokens and whether it is right, at height y."""
    ax.text(-0.8, y, name, ha="right", va="center", fontsize=POINTS - 2, linespacing=1.1)
    for token in tokens.itertuples():
        _cell(ax, *places[token.position, token.fate == "rejected"], y, token)
    word, colour = ("right", RIGHT) if right else ("wrong", REJECTED)
    ax.text(width + 0.6, y, word, va="center", fontsize=POINTS, color=colour, weight="bold")


def _cell(ax, left, wide, y, token):
    """One token: a box shaded by the draft's entropy, the text, and what became of it."""
    by_target = token.fate == "target"
    fill = "white" if by_target else SHADES[np.searchsorted(LEVELS, token.H_q)]
    mark, border = MARKS.get(token.fate, ("", "black" if by_target else EDGE))
    ax.add_patch(
        FancyBboxPatch(
            (left + 0.07, y - HEIGHT / 2),
            wide - 0.14,
            HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor=fill,
            edgecolor=border,
            linewidth=3 if mark else 1.2,
        )
    )
    text = SHOWN.get(token.text, token.text)
    middle = left + wide / 2
    style = dict(ha="center", va="center", fontsize=POINTS, family="monospace")
    ax.text(middle, y, text, color=text_on(fill), **style)
    ax.text(middle, y + HEIGHT / 2 + 0.6, mark, color=border, **style)
    if token.fate == "rejected":
        ax.plot([left + 0.2, left + wide - 0.2], [y, y], color=REJECTED, linewidth=3)


def _explain_rescue(ax, relaxed, places):
    """In words, what happened at the first rescued token."""
    token = next(relaxed[relaxed.fate == "rescued"].itertuples())
    left, wide = places[token.position, False]
    ratio = token.p_x / token.q_x
    words = (
        f"The draft says {token.text} with {100 * token.q_x:.0f} %, the target with "
        f"{100 * token.p_x:.1f} %:\n"
        f"strict keeps it {100 * ratio:.0f} % of the time, relaxed {100 * ratio**0.5:.0f} %."
    )
    ax.annotate(
        words,
        (left + wide / 2, -ROW_GAP - HEIGHT / 2),
        (left + wide / 2 - 4, -ROW_GAP - HEIGHT / 2 - 1),
        ha="center",
        va="top",
        fontsize=POINTS - 4,
        color=RESCUED,
        arrowprops=dict(arrowstyle="-", color=RESCUED, linewidth=1.5),
    )


def _key(ax, tau):
    """One line below the rows that says what shades and marks mean."""
    y = -ROW_GAP - 6.4
    scale = -4.3
    style = dict(va="center", fontsize=POINTS - 4)
    ax.text(-11.3, y, "draft sure", **style)
    for i, shade in enumerate(SHADES):
        ax.add_patch(Rectangle((scale + i, y - 0.6), 1, 1.2, facecolor=shade, edgecolor=EDGE))
    border = scale + np.searchsorted(LEVELS, tau) + 1
    ax.plot([border, border], [y - 0.6, y + 0.9], color="black", linewidth=2)
    ax.text(border, y + 1.5, "τ", ha="center", **style)
    ax.text(3.2, y, "unsure", **style)
    ax.add_patch(Rectangle((10, y - 0.6), 1.2, 1.2, facecolor="white", edgecolor="black"))
    ax.text(11.7, y, "by the target", **style)
    ax.text(22, y, "✗ rejected", color=REJECTED, **style)
    ax.text(31, y, "★ rescued: only relaxed keeps it", color=RESCUED, **style)
