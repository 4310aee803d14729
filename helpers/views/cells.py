"""What the views show, as plain data: tokens as cells, cells in lanes.

A cell is a dict of text, kind, detail, path, shade, bg, fg, counterfactual and mark; a lane is a
dict of title, summary, cells and gap. Both static.py and strips.js draw from these, so the two
cannot disagree. Nothing here knows a widget.
"""

import math

from helpers.plots.style import LEVELS, SHADES, speaker_colours, text_on
from helpers.views.deciding import redecide

MARKS = {"rescued": "★", "rejected": "✗", "residual": "↺", "bonus": "◆"}
UNTESTED = {
    "residual": "written by the target in place of the rejected token",
    "bonus": "bonus: the target's own token after a block that was accepted whole",
    "draft": "not tested",
    "target": "made by the target",
}
# The legend's marks: kind, path, words.
KEY = (
    ("accepted", "strict", "accepted by the strict test"),
    ("accepted", "relaxed", "accepted by the relaxed test"),
    ("rescued", "relaxed", "rescued: the strict test rejects it"),
    ("rejected", "strict", "rejected"),
    ("residual", "", "replacement of a rejected token"),
    ("bonus", "", "bonus: the whole block was accepted"),
)


# ---- cells -------------------------------------------------------------------------------------


def cell(text, kind, detail, *, path="", shade=None, bg="", fg="", counterfactual=False):
    """One cell; its mark follows from its kind.

    shade: place in SHADES, which the page's theme turns into colours; bg, fg: where none can.
    """
    return {
        "text": text,
        "kind": kind,
        "detail": detail,
        "path": path,
        "shade": shade,
        "bg": bg,
        "fg": fg,
        "counterfactual": counterfactual,
        "mark": MARKS.get(kind, ""),
    }


def visible(text):
    """A token's text with a sign where there would be nothing to see."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "∅"


def shaded(H):
    """shade, bg and fg of a cell whose entropy is H nats; none where it is missing."""
    if H is None or math.isnan(H):
        return {}
    place = sum(H > level for level in LEVELS)
    return {"shade": place, "bg": SHADES[place], "fg": text_on(SHADES[place])}


def plural(number, noun):
    """A number and its noun: "1 decision", "2 decisions"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def texts(tokenizer, tokens):
    """Every token's own text, special tokens included."""
    known = {token: tokenizer.decode([int(token)]) for token in set(tokens)}
    return [known[token] for token in tokens]


def answer_cells(rows, token_texts):
    """Cells of one answer. rows: what `redecide` returned; token_texts: one per row."""
    drawn = []
    for row, text in zip(rows.itertuples(), token_texts):
        kind = _kind(row)
        token = cell(
            visible(text),
            kind,
            _detail(row, kind, text),
            path=row.path if row.tested else "",
            counterfactual=bool(row.counterfactual),
            **shaded(row.H_q),
        )
        drawn.append(token)
        if row.changed and not row.counterfactual:
            before, now = ("rejected", "accepted") if row.accepted else ("accepted", "rejected")
            note = (
                f"⟂ recorded as {before}, now {now}: the answer would have gone on differently; "
                "what follows was recorded, but would not have been written (counterfactual)"
            )
            drawn.append(cell(note, "note", note))
    return drawn


def _kind(row):
    """What became of one token, or who made it where it was not tested."""
    if not row.tested:
        return row.source
    if row.rescued:
        return "rescued"
    return "accepted" if row.accepted else "rejected"


def _detail(row, kind, text):
    """The sentence that hover and keyboard show for one row of a trace."""
    parts = [f"token {text!r}", f"position {row.position}", f"round {row.round}, slot {row.slot}"]
    if not math.isnan(row.H_q):
        parts.append(f"H(q) {row.H_q:.3f} nats")
    if not row.tested:
        parts.append(UNTESTED.get(kind, f"written by {kind}"))
        return " · ".join(parts)
    parts.append(f"p(x) {row.p_x:.4f} · q(x) {row.q_x:.4f} · random number u {row.u:.4f}")
    if not math.isnan(row.a):
        parts.append(f"the {row.path} test accepts where u < {row.a:.4f}")
    if kind == "rescued":
        parts.append("rescued: accepted here, rejected by the strict test")
    else:
        parts.append(kind)
    if row.counterfactual:
        parts.append("counterfactual")
    return " · ".join(parts)


def routed_cells(rows, token_texts, names, speakers):
    """Cells of a routed answer, coloured by who speaks; a name stands where the speaker changes.

    rows: its trace; token_texts, speakers: one per row; names: the models that may speak, "draft"
    first. Where a speaker is another one than was recorded a line says so, once.
    """
    colours = speaker_colours(names)
    drawn = []
    before = None
    parted = False
    for row, text, name in zip(rows.to_dict("records"), token_texts, speakers):
        recorded = row["source"].removeprefix("expert:")
        if name != recorded and not parted:
            note = (
                f"⟂ recorded: {recorded} writes, now {name}: the answer might have gone on "
                "differently; what follows was recorded, and is shaded by who would write it"
            )
            drawn.append(cell(note, "note", note))
            parted = True
        if name != before:
            drawn.append(cell(f"{name}:", "speaker", f"{name} takes over"))
            before = name
        entropies = [(model, row.get(f"H_{model}", math.nan)) for model in names]
        known = ", ".join(f"{model} {H:.3f}" for model, H in entropies if not math.isnan(H))
        written = "written" if name == recorded else f"written by {recorded}, would be written"
        detail = (
            f"token {text!r} · position {row['position']} · {written} by {name} · "
            f"entropies in nats: {known}"
        )
        colour = colours[name]
        token = cell(
            visible(text),
            "spoken",
            detail,
            bg=colour,
            fg=text_on(colour),
            counterfactual=parted,
        )
        drawn.append(token)
    return drawn


# ---- lanes -------------------------------------------------------------------------------------


def lane(title, summary="", cells=(), gap="\u200b"):
    """One strip of tokens with a title and a line of numbers.

    gap: what the static rendering puts between tokens.
    """
    return {"title": title, "summary": summary, "cells": list(cells), "gap": gap}


def answer_lane(title, trace, rule, tokenizer):
    """The lane of one recorded answer, decided by `rule`."""
    rows = redecide(trace, rule)
    return lane(title, counts(rows), answer_cells(rows, texts(tokenizer, trace.token)))


def counts(rows):
    """The counts of one answer that `redecide` has decided, in a line."""
    tested = int(rows.tested.sum())
    if not tested:
        return f"{len(rows)} tokens, mean H(q) {rows.H_q.mean():.3f} nats"
    accepted = int(rows.accepted.sum())
    relaxed = int((rows.path == "relaxed").sum())
    changes = rows.position[rows.changed]
    words = "no decision changed"
    if len(changes):
        changed = plural(len(changes), "decision")
        words = f"{changed} changed, the first at position {changes.iloc[0]}"
    return (
        f"accepted {accepted} of {tested} tested ({100 * accepted / tested:.0f} %) · "
        f"relaxed tests {relaxed} · rescued {int(rows.rescued.sum())} · {words}"
    )


def legend():
    """The key to shades and marks, as a lane."""
    between = [f"{low:g} – {high:g}" for low, high in zip(LEVELS, LEVELS[1:])]
    ranges = [f"≤ {LEVELS[0]:g}", *between, f"> {LEVELS[-1]:g}"]
    inside = [LEVELS[0] / 2, *LEVELS[1:], 2 * LEVELS[-1]]
    key = []
    for words, H in zip(ranges, inside):
        key.append(cell(words, "key", f"H(q) {words} nats", **shaded(H)))
    for kind, path, words in KEY:
        colours = shaded(0.0) if path else {}
        key.append(cell(words, kind, words, path=path, **colours))
    return lane("key: draft entropy H(q) in nats, and marks", "", key, " \u00a0 ")
