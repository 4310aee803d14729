"""What the views of helpers/widgets.py show, as plain data and as static HTML: tokens as cells, cells in lanes, small charts.

A cell is a dict of text, kind, path, bg, fg, mark and detail; a lane is a dict of title, summary and cells. Both the static
HTML here and helpers/widgets.js draw from these, so the two cannot disagree. Nothing here knows a widget.
"""
import math
from html import escape
from urllib.parse import quote

import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator

from helpers import rules
from helpers.sampling import accepts

LEVELS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.5)        # nats; seven shades, dark where the draft is unsure
SHADES = (("#f7fbff", "#000000"), ("#deebf7", "#000000"), ("#c6dbef", "#000000"), ("#9ecae1", "#000000"),
          ("#6baed6", "#000000"), ("#2171b5", "#ffffff"), ("#08306b", "#ffffff"))
SPEAKERS = (("#e5e5e5", "#000000"), ("#56b4e9", "#000000"), ("#e69f00", "#000000"), ("#cc79a7", "#000000"),
            ("#009e73", "#000000"), ("#f0e442", "#000000"))     # Okabe and Ito's, the draft's first
MARKS = {"rescued": "★", "rejected": "✗", "residual": "↺", "bonus": "+"}
TAGS = {"rejected": "del", "residual": "ins", "rescued": "b"}   # what is left where a reader strips colours
UNDERLINE = {"relaxed": "2px dashed", "strict": "2px solid"}


# ---- deciding again ------------------------------------------------------------------------------------

def redecide(trace, rule):
    """Decide every recorded test of one answer again under `rule`, from its recorded p, q, H and u.

    Returns the trace with accepted, path and rescued anew, and: tested; a, the acceptance probability; changed, where the
    decision is another one than the recorded; counterfactual, on rows after the first change, which that rule would not
    have produced (each is still judged on the prefix that was recorded).
    """
    if getattr(rule, "gate", "") == "random":
        raise ValueError("a trace does not record the uniforms of a random gate; choose another rule")
    rows = trace.reset_index(drop=True)
    rows = rows.reindex(columns=[*rows, *({"H_q", "H_p", "p_x", "q_x", "max_q", "u", "accepted"} - set(rows))])
    tested = (rows.source == "draft") & rows.u.notna()
    p, q, u, *signals = (torch.tensor(rows[c].astype(float).to_numpy(), dtype=torch.float32)    # as it was recorded
                         for c in ("p_x", "q_x", "u", "H_q", "H_p", "max_q"))
    signals = rules.Signals(*signals)
    a = rules.accept_prob(rule, p, q, signals)
    ok, strict = accepts(a, u).numpy() & tested, accepts(rules.STRICT.accept(p, q), u).numpy() & tested
    path = pd.Series(rules.is_open(rule, signals).numpy()).map({True: "relaxed", False: "strict"})
    changed = tested & (ok != (rows.accepted == True))      # noqa: E712  (a column of bools and gaps)
    after = changed.cumsum().shift(fill_value=0) > 0
    return rows.assign(tested=tested, a=a.numpy(), accepted=ok, path=path.where(tested), rescued=ok & ~strict,
                       changed=changed, counterfactual=after)


# ---- cells and lanes -----------------------------------------------------------------------------------

def shown(text):
    """A token's text with a sign where there would be nothing to see."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "∅"


def shade(H):
    """Background and text colour of an entropy in nats; none where it is missing."""
    return SHADES[sum(H > level for level in LEVELS)] if H == H and H is not None else ("", "")


def cells(rows, texts):
    """Cells of one answer that `redecide` has decided. rows: its DataFrame; texts: one per row."""
    made = []
    for r, text in zip(rows.itertuples(), texts):
        kind = ("rescued" if r.rescued else "accepted" if r.accepted else "rejected") if r.tested else r.source
        bg, fg = shade(r.H_q)
        made.append({"text": shown(text), "kind": kind, "path": r.path if r.tested else "", "bg": bg, "fg": fg,
                     "mark": MARKS.get(kind, ""), "detail": _detail(r, kind, text), "cf": bool(r.counterfactual)})
        if r.changed and not r.counterfactual:
            was, now = ("rejected", "accepted") if r.accepted else ("accepted", "rejected")
            made.append(_note(f"⟂ recorded as {was}, now {now}: from here on counterfactual, the answer would have gone on differently"))
    return made


def _note(text):
    return {"text": text, "kind": "note", "path": "", "bg": "", "fg": "", "mark": "", "detail": text, "cf": False}


def _detail(r, kind, text):
    """The sentence that hover and keyboard show for one row of a trace."""
    said = [f"token {text!r}", f"position {r.position}", f"round {r.round}, slot {r.slot}"]
    if r.H_q == r.H_q:
        said.append(f"H(q) {r.H_q:.3f} nats")
    if not r.tested:
        words = {"residual": "residual: drawn in place of the rejected token", "bonus": "bonus: the whole block was accepted",
                 "draft": "not tested", "target": "made by the target"}
        return " · ".join([*said, words.get(kind, f"spoken by {kind}")])
    odds = f"p {r.p_x:.4f} · q {r.q_x:.4f} · u {r.u:.4f} · {r.path} path accepts below {r.a:.4f}"
    verdict = {"rescued": "rescued: accepted here, rejected by the strict test"}.get(kind, kind)
    return " · ".join([*said, odds, verdict, *(["counterfactual"] if r.counterfactual else [])])


def summary(rows):
    """The counts of one decided answer, in a line."""
    n = int(rows.tested.sum())
    if not n:
        return f"{len(rows)} tokens, mean H(q) {rows.H_q.mean():.3f} nats"
    at = rows.position[rows.changed]
    changed = f"{len(at)} decisions changed, the first at position {at.iloc[0]}" if len(at) else "no decision changed"
    return (f"accepted {int(rows.accepted.sum())} of {n} tested ({rows.accepted.sum() / n:.0%}) · relaxed path "
            f"{int((rows.path == 'relaxed').sum())} · rescued {int(rows.rescued.sum())} · {changed}")


def lane(title, said="", made=()):
    """One strip of tokens with a title and a line of numbers."""
    return {"title": title, "summary": said, "cells": list(made)}


def answer(title, trace, rule, tokenizer):
    """The lane of one recorded answer under `rule`."""
    rows = redecide(trace, rule)
    return lane(title, summary(rows), cells(rows, texts(tokenizer, trace.token)))


def texts(tokenizer, tokens):
    """Every token's own text, special tokens included."""
    known = {t: tokenizer.decode([int(t)]) for t in set(tokens)}
    return [known[t] for t in tokens]


def legend():
    """The key to shades and marks, as a lane."""
    edges = [f"≤ {LEVELS[0]:g}", *(f"– {b:g}" for b in LEVELS[1:]), f"> {LEVELS[-1]:g}"]
    blank = {"path": "", "mark": "", "cf": False, "kind": "key"}
    key = [{**blank, "text": text, "bg": bg, "fg": fg, "detail": f"H(q) {text} nats"} for text, (bg, fg) in zip(edges, SHADES)]
    for kind, path, word in (("accepted", "strict", "strict path"), ("accepted", "relaxed", "relaxed path"), ("rescued", "relaxed", "rescued"),
                             ("rejected", "strict", "rejected"), ("residual", "", "residual"), ("bonus", "", "bonus")):
        bg, fg = SHADES[0] if path else ("", "")
        key.append({"text": word, "kind": kind, "path": path, "bg": bg, "fg": fg, "mark": MARKS.get(kind, ""), "detail": word, "cf": False})
    return lane("key: draft entropy H(q) in nats, and marks", "", key)


def spoken(trace, tokenizer, names):
    """Cells of a routed answer, coloured by the model that spoke; a name stands where the speaker changes."""
    made, before = [], None
    for r, text in zip(trace.to_dict("records"), texts(tokenizer, trace.token)):
        name = r["source"].removeprefix("expert:")
        bg, fg = SPEAKERS[names.index(name) % len(SPEAKERS)]
        heard = ", ".join(f"{n} {r[f'H_{n}']:.3f}" for n in names if r.get(f"H_{n}") == r.get(f"H_{n}") and f"H_{n}" in r)
        detail = f"token {text!r} · position {r['position']} · spoken by {name} · entropies in nats: {heard}"
        if name != before:
            made.append({"text": f"{name}:", "kind": "speaker", "path": "", "bg": "", "fg": "", "mark": "", "detail": f"{name} takes over", "cf": False})
        made.append({"text": shown(text), "kind": "spoken", "path": "", "bg": bg, "fg": fg, "mark": "", "detail": detail, "cf": False})
        before = name
    return made


# ---- static HTML ---------------------------------------------------------------------------------------

def html(heading, lanes, picture="", alt="", table=""):
    """The static rendering: escaped text with inline colours and tags that mean something where colours are stripped.

    picture: an SVG document, shown as an image. table: HTML made by `numbers`.
    """
    image = f'<p><img alt="{escape(alt)}" src="data:image/svg+xml,{quote(picture)}" style="max-width:100%"></p>' if picture else ""
    body = "".join(f"<p><b>{escape(s['title'])}</b><br>{escape(s['summary'])}</p><p style=\"line-height:1.9\">"
                   + "\u200b".join(map(_tag, s["cells"])) + "</p>" for s in lanes)
    return (f"<div><p><b>{escape(heading)}</b> <i>(static picture; run this cell in JupyterLab to move the controls)</i></p>"
            f"{image}{table}{body}</div>")


def _tag(cell):
    """One cell as HTML."""
    style = f"background-color:{cell['bg']};color:{cell['fg']};" if cell["bg"] else ""
    style += f"border-bottom:{UNDERLINE[cell['path']]} #d55e00;" if cell["path"] else ""
    tag = TAGS.get(cell["kind"], "i" if cell["cf"] or cell["kind"] in ("note", "speaker") else "span")
    text = escape(cell["text"]).replace("\n", "<br>").replace("  ", "\u00a0\u00a0")
    mark = f"<sup>{cell['mark']}</sup>" if cell["mark"] else ""
    return f'<{tag} title="{escape(cell["detail"])}" style="{style}">{text}</{tag}>{mark}'


def numbers(frame, bold=None):
    """A small HTML table; the row at position `bold` is set in bold. Values are escaped."""
    head = "".join(f"<th>{escape(str(c))}</th>" for c in frame)
    body = "".join("<tr>" + "".join(f"<td>{'<b>' * (i == bold)}{escape(str(v))}{'</b>' * (i == bold)}</td>" for v in row) + "</tr>"
                   for i, row in enumerate(frame.itertuples(index=False)))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


# ---- small charts --------------------------------------------------------------------------------------

def line(name, colour, x, y, low=(), high=(), joined=True):
    """One series of a panel; gaps are NaN. low, high: bounds of a bar at each point."""
    return {"name": name, "colour": colour, "x": list(x), "y": list(y), "low": list(low), "high": list(high), "joined": joined}


def panel(title, series, *, x_label="", x_names=(), cursor=None, point=None, level=None):
    """One small chart. cursor: an x to mark by a vertical line; point: (x, y) to circle; level: a y to mark."""
    return {"title": title, "series": series, "x_label": x_label, "x_names": list(x_names), "cursor": cursor, "point": point, "level": level}


def chart(panels, width=270, height=210):
    """Panels in a row as one SVG document, dark on white so that it reads in any theme."""
    body = "".join(f'<g transform="translate({i * width},0)">{_panel(p, width, height)}</g>' for i, p in enumerate(panels))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height}" width="{width * len(panels)}" '
            f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>{body}</svg>')


def _panel(p, width, height):
    """The inside of one chart."""
    left, top, right, bottom = 46, 24, width - 12, height - 40
    xs = [v for s in p["series"] for v in s["x"]]
    ys = [v for s in p["series"] for k in ("y", "low", "high") for v in s[k] if v == v] + ([p["level"]] if p["level"] is not None else [])
    x0, x1 = (min(xs) - 0.3, max(xs) + 0.3) if p["x_names"] else _ends(xs)
    y0, y1 = _ends(ys)
    X = lambda v: left + (v - x0) / (x1 - x0) * (right - left)      # noqa: E731
    Y = lambda v: bottom - (v - y0) / (y1 - y0) * (bottom - top)    # noqa: E731
    out = [f'<text x="{(left + right) / 2}" y="15" text-anchor="middle" font-weight="bold">{escape(p["title"])}</text>',
           f'<text x="{(left + right) / 2}" y="{height - 6}" text-anchor="middle">{escape(p["x_label"])}</text>',
           f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#555"/>']
    for v, name in (enumerate(p["x_names"]) if p["x_names"] else ((t, f"{t:g}") for t in _ticks(x0, x1))):
        out.append(f'<text x="{X(v):.1f}" y="{bottom + 14}" text-anchor="middle">{escape(name)}</text>')
    for v in _ticks(y0, y1):
        out.append(f'<text x="{left - 5}" y="{Y(v) + 4:.1f}" text-anchor="end">{v:g}</text><path d="M{left} {Y(v):.1f}H{right}" stroke="#e6e6e6"/>')
    if p["cursor"] is not None:
        out.append(f'<path class="cursor" d="M{X(p["cursor"]):.1f} {top}V{bottom}" stroke="#000" stroke-dasharray="4 3"/>')
    if p["level"] is not None:
        out.append(f'<path d="M{left} {Y(p["level"]):.1f}H{right}" stroke="#555" stroke-dasharray="2 3"/>')
    for i, s in enumerate(p["series"]):
        out.append(_series(s, X, Y))
        if len(p["series"]) > 1:
            out.append(f'<text x="{right - 4}" y="{top + 12 + 13 * i}" text-anchor="end" fill="{s["colour"]}" font-weight="bold">{escape(s["name"])}</text>')
    if p["point"]:
        out.append(f'<circle class="point" cx="{X(p["point"][0]):.1f}" cy="{Y(p["point"][1]):.1f}" r="8" fill="none" stroke="#000" stroke-width="2"/>')
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
            out.append(f'<path d="M{X(x):.1f} {Y(s["low"][i]):.1f}V{Y(s["high"][i]):.1f}" stroke="{s["colour"]}" stroke-opacity="0.5" stroke-width="3"/>')
        out.append(f'<circle cx="{X(x):.1f}" cy="{Y(y):.1f}" r="3" fill="{s["colour"]}"/>')
    return (f'<path d="{path}" fill="none" stroke="{s["colour"]}" stroke-width="1.5"/>' if s["joined"] and path else "") + "".join(out)


def _ends(values):
    """An axis that holds all values with some air; one unit wide where they are all the same."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    air = (high - low) * 0.06 or 0.5
    return low - air, high + air


def _ticks(low, high):
    return [float(f"{v:.6g}") for v in MaxNLocator(4).tick_values(low, high) if low <= v <= high]
