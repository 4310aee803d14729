"""What the views of helpers/views show, as plain data and as static HTML: tokens as cells, cells in lanes.

A cell is a dict of text, kind, path, bg, fg, mark and detail; a lane is a dict of title, summary and cells. Both the static
HTML here and helpers/views/strips.js draw from these, so the two cannot disagree. Nothing here knows a widget.
"""

import math
from html import escape
from urllib.parse import quote

import pandas as pd
import torch

from helpers import rules
from helpers.decoding.sampling import accepts

LEVELS = (0.05, 0.2, 0.5, 1.0, 1.5, 2.5)  # nats; seven shades, dark where the draft is unsure
SHADES = (
    ("#f7fbff", "#000000"),
    ("#deebf7", "#000000"),
    ("#c6dbef", "#000000"),
    ("#9ecae1", "#000000"),
    ("#6baed6", "#000000"),
    ("#2171b5", "#ffffff"),
    ("#08306b", "#ffffff"),
)
SPEAKERS = (
    ("#e5e5e5", "#000000"),
    ("#56b4e9", "#000000"),
    ("#e69f00", "#000000"),
    ("#cc79a7", "#000000"),
    ("#009e73", "#000000"),
    ("#f0e442", "#000000"),
)  # Okabe and Ito's, the draft's first
STATIC_CELLS = 300  # about 100 kB of HTML
MARKS = {"rescued": "★", "rejected": "✗", "residual": "↺", "bonus": "+"}
TAGS = {
    "rejected": "del",
    "residual": "ins",
    "rescued": "b",
}  # what is left where a reader strips colours
UNDERLINE = {"relaxed": "2px dashed", "strict": "2px solid"}


# ---- deciding again ------------------------------------------------------------------------------------


def redecide(trace, rule):
    """Decide every recorded test of one answer again under `rule`, from its recorded p, q, H and u.

    Returns the trace with accepted, path and rescued anew, and: tested; a, the acceptance probability; changed, where the
    decision is another one than the recorded; counterfactual, on rows after the first change, which that rule would not
    have produced (each is still judged on the prefix that was recorded).
    """
    if getattr(rule, "gate", "") == "random":
        raise ValueError(
            "a trace does not record the uniforms of a random gate; choose another rule"
        )
    rows = trace.reset_index(drop=True)
    rows = rows.reindex(
        columns=[*rows, *({"H_q", "H_p", "p_x", "q_x", "max_q", "u", "accepted"} - set(rows))]
    )
    tested = (rows.source == "draft") & rows.u.notna()
    p, q, u, *signals = (
        torch.tensor(rows[c].astype(float).to_numpy(), dtype=torch.float32)  # as it was recorded
        for c in ("p_x", "q_x", "u", "H_q", "H_p", "max_q")
    )
    signals = rules.Signals(*signals)
    a = rules.accept_prob(rule, p, q, signals)
    ok, strict = (
        accepts(a, u).numpy() & tested,
        accepts(rules.STRICT.accept(p, q), u).numpy() & tested,
    )
    path = pd.Series(rules.is_open(rule, signals).numpy()).map({True: "relaxed", False: "strict"})
    changed = tested & (ok != (rows.accepted == True))  # noqa: E712  (a column of bools and gaps)
    after = changed.cumsum().shift(fill_value=0) > 0
    return rows.assign(
        tested=tested,
        a=a.numpy(),
        accepted=ok,
        path=path.where(tested),
        rescued=ok & ~strict,
        changed=changed,
        counterfactual=after,
    )


def said(rule):
    """A rule in words."""
    if not isinstance(rule, rules.Gated):
        return "the strict rule" if rule == rules.STRICT else repr(rule)
    beta = rule.inner.beta
    name = {0.5: "√", 0.0: "accept all", 1.0: "strict"}.get(beta, f"power β = {beta:g}")
    return (
        f"{name} everywhere"
        if math.isinf(rule.tau)
        else f"{name} where H(q) ≤ {rule.tau:g} nats, strict elsewhere"
    )


class Record:
    """Recorded answers by (problem, seed, method), and the questions that they answer."""

    def __init__(self, trace, problems):
        columns = {
            "problem_id": "answer",
            "seed": 0,
            "method": "recorded",
        }  # of one Generation's trace
        self.trace = trace.assign(**{name: v for name, v in columns.items() if name not in trace})
        self.places = self.trace.groupby(list(columns), sort=False).indices
        self.keys = sorted(self.places, key=lambda key: self.places[key][0])
        self.problems, self.seeds, self.methods = (
            list(dict.fromkeys(column)) for column in zip(*self.keys)
        )
        self.questions = {p.id: p.messages[-1]["content"] for p in problems}

    def rows(self, key):
        """The trace of one answer; an answer that is not there is an error."""
        if key not in self.places:
            raise ValueError(
                f"there is no recorded answer to {key[0]} with seed {key[1]} by {key[2]}; choose others"
            )
        return self.trace.iloc[self.places[key]].reset_index(drop=True)

    def question(self, problem):
        """The question as a list of lanes, empty where it is not known."""
        return [lane("question", self.questions[problem])] if problem in self.questions else []


# ---- cells and lanes -----------------------------------------------------------------------------------


def shown(text):
    """A token's text with a sign where there would be nothing to see."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "∅"


def shade(H):
    """Background and text colour of an entropy in nats; none where it is missing."""
    return SHADES[sum(H > level for level in LEVELS)] if H == H and H is not None else ("", "")


def cell(text, kind, detail, *, path="", bg="", fg="", cf=False):
    """One cell; its mark follows from its kind."""
    return {
        "text": text,
        "kind": kind,
        "detail": detail,
        "path": path,
        "bg": bg,
        "fg": fg,
        "cf": cf,
        "mark": MARKS.get(kind, ""),
    }


def cells(rows, texts):
    """Cells of one answer that `redecide` has decided. rows: its DataFrame; texts: one per row."""
    made = []
    for r, text in zip(rows.itertuples(), texts):
        kind = (
            ("rescued" if r.rescued else "accepted" if r.accepted else "rejected")
            if r.tested
            else r.source
        )
        bg, fg = shade(r.H_q)
        made.append(
            cell(
                shown(text),
                kind,
                _detail(r, kind, text),
                path=r.path if r.tested else "",
                bg=bg,
                fg=fg,
                cf=bool(r.counterfactual),
            )
        )
        if r.changed and not r.counterfactual:
            was, now = ("rejected", "accepted") if r.accepted else ("accepted", "rejected")
            note = (
                f"⟂ recorded as {was}, now {now}: the answer would have gone on differently; "
                "what follows is counterfactual"
            )
            made.append(cell(note, "note", note))
    return made


def _detail(r, kind, text):
    """The sentence that hover and keyboard show for one row of a trace."""
    said = [f"token {text!r}", f"position {r.position}", f"round {r.round}, slot {r.slot}"]
    if r.H_q == r.H_q:
        said.append(f"H(q) {r.H_q:.3f} nats")
    if not r.tested:
        words = {
            "residual": "residual: drawn in place of the rejected token",
            "bonus": "bonus: the whole block was accepted",
            "draft": "not tested",
            "target": "made by the target",
        }
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
    changed = (
        f"{len(at)} decisions changed, the first at position {at.iloc[0]}"
        if len(at)
        else "no decision changed"
    )
    return (
        f"accepted {int(rows.accepted.sum())} of {n} tested ({rows.accepted.sum() / n:.0%}) · relaxed path "
        f"{int((rows.path == 'relaxed').sum())} · rescued {int(rows.rescued.sum())} · {changed}"
    )


def lane(title, said="", made=(), gap="\u200b"):
    """One strip of tokens with a title and a line of numbers; gap: what static HTML puts between tokens."""
    return {"title": title, "summary": said, "cells": list(made), "gap": gap}


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
    key = [
        cell(text, "key", f"H(q) {text} nats", bg=bg, fg=fg)
        for text, (bg, fg) in zip(edges, SHADES)
    ]
    marks = [
        ("accepted", "strict", "strict path"),
        ("accepted", "relaxed", "relaxed path"),
        ("rescued", "relaxed", "rescued"),
        ("rejected", "strict", "rejected"),
        ("residual", "", "residual"),
        ("bonus", "", "bonus"),
    ]
    for kind, path, word in marks:
        bg, fg = SHADES[0] if path else ("", "")
        key.append(cell(word, kind, word, path=path, bg=bg, fg=fg))
    return lane("key: draft entropy H(q) in nats, and marks", "", key, " \u00a0 ")


def spoken(trace, tokenizer, names):
    """Cells of a routed answer, coloured by the model that spoke; a name stands where the speaker changes."""
    made, before = [], None
    for r, text in zip(trace.to_dict("records"), texts(tokenizer, trace.token)):
        name = r["source"].removeprefix("expert:")
        bg, fg = SPEAKERS[names.index(name) % len(SPEAKERS)]
        H = {n: r.get(f"H_{n}", math.nan) for n in names}
        heard = ", ".join(f"{n} {h:.3f}" for n, h in H.items() if h == h)
        detail = f"token {text!r} · position {r['position']} · spoken by {name} · entropies in nats: {heard}"
        if name != before:
            made.append(cell(f"{name}:", "speaker", f"{name} takes over"))
        made.append(cell(shown(text), "spoken", detail, bg=bg, fg=fg))
        before = name
    return made


# ---- static HTML ---------------------------------------------------------------------------------------


def html(heading, lanes, picture="", alt="", table="", below=False):
    """The static rendering: escaped text with inline colours and tags that mean something where colours are stripped.

    picture: an SVG document, shown as an image, above or below the lanes. table: HTML made by `numbers`.
    """
    image = f'<p><img alt="{escape(alt)}" src="data:image/svg+xml,{quote(picture)}" style="max-width:100%"></p>'
    note = "(static picture; run this cell in JupyterLab to move the controls)"
    strips, shown = "".join(map(_strip, lanes)), f"{image if picture else ''}{table}"
    return f"<div><p><b>{escape(heading)}</b> <i>{note}</i></p>{strips + shown if below else shown + strips}</div>"


def _strip(made):
    """One lane as HTML, cut where it would make a committed notebook large."""
    tokens, left = made["cells"][:STATIC_CELLS], len(made["cells"]) - STATIC_CELLS
    more = f" <i>… and {left} more</i>" if left > 0 else ""
    strip = (
        f'<p style="line-height:1.9">{made["gap"].join(map(_tag, tokens))}{more}</p>'
        if tokens
        else ""
    )
    return f"<p><b>{escape(made['title'])}</b><br>{escape(made['summary'])}</p>{strip}"


def _tag(cell):
    """One cell as HTML."""
    style = f"background-color:{cell['bg']};color:{cell['fg']};" if cell["bg"] else ""
    style += f"border-bottom:{UNDERLINE[cell['path']]} #d55e00;" if cell["path"] else ""
    tag = TAGS.get(
        cell["kind"], "i" if cell["cf"] or cell["kind"] in ("note", "speaker") else "span"
    )
    text = escape(cell["text"]).replace("\n", "<br>").replace("  ", "\u00a0\u00a0")
    mark = f"<sup>{cell['mark']}</sup>" if cell["mark"] else ""
    return f'<{tag} title="{escape(cell["detail"])}" style="{style}">{text}</{tag}>{mark}'


def numbers(frame, bold=None):
    """A small HTML table; the row at position `bold` is set in bold. Values are escaped."""
    head = "".join(f"<th>{escape(str(c))}</th>" for c in frame)
    body = ""
    for i, row in enumerate(frame.itertuples(index=False)):
        open_, close = ("<b>", "</b>") if i == bold else ("", "")
        body += f"<tr>{''.join(f'<td>{open_}{escape(str(v))}{close}</td>' for v in row)}</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
