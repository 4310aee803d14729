"""Views of recorded work: an answer's anatomy, a sweep over tau, a routed answer."""

import ipywidgets as ui
import pandas as pd

from helpers import probes, rules
from helpers.views import cells, charts
from helpers.views.controls import LOOK, Controls, choice, control_row, rule_controls, rule_from
from helpers.views.strips import Strips, View


def _view(heading, controls, state, legend=(), table=""):
    """A View of recorded work. state: the controls' values -> traits of Strips; table: for the static picture."""
    begin = state(*(value for row in controls for value in row.begin))

    def build():
        canvas, made = Strips(legend=list(legend)), [row.make() for row in controls]
        moved = [control for row in made for control in row]

        def redraw(*_):
            canvas.show(lambda: state(*(control.value for control in moved)))

        for control in moved:
            control.observe(redraw, "value")
        redraw()
        return ui.VBox([*map(control_row, made), canvas])

    page = cells.html(
        heading,
        [*begin["lanes"], *legend],
        begin.get("picture", ""),
        begin.get("alt", ""),
        table,
        begin.get("below", False),
    )
    return View(page, build)


# ---- views of recorded work ----------------------------------------------------------------------------


def anatomy(trace, pair, problems=(), *, tau=1.0, beta=0.5, problem_id=None):
    """A recorded answer, every test decided again under another tau or rule.

    trace: what experiments.run(..., trace=True) recorded (any methods, problems, seeds), or one Generation's trace.
    problems: where given, the question stands above the answer. tau (nats) and beta are where the sliders begin. The
    view opens at problem_id, or at the answer with the most rescued, then most rejected tokens.
    """
    record = cells.Record(
        trace[~trace.method.isin(("AS_small", "AS_large"))] if "method" in trace else trace,
        problems,
    )
    method = next(
        (m for m in (f"τ = {tau:g}", "SP_entropy", "SP") if m in record.methods), record.methods[0]
    )

    def events(key):
        rows = record.rows(key)
        return (rows.get("rescued", rows.token) == True).sum(), (rows.source == "residual").sum()  # noqa: E712

    able = [k for k in record.keys if k[2] == method and problem_id in (None, k[0])] or record.keys
    problem, seed, method = max(able, key=events)

    def state(problem, seed, method, *rule):
        rule, rows = rule_from(*rule), record.rows((problem, seed, method))
        title = f"answer recorded with {method}, decided by: {cells.said(rule)}"
        return {
            "lanes": [*record.question(problem), cells.answer(title, rows, rule, pair.tokenizer)]
        }

    pick = (
        choice("problem", record.problems, problem),
        choice("seed", record.seeds, seed),
        choice("recorded", record.methods, method),
    )
    row = Controls(lambda: [c for p in pick for c in p.make()], sum((p.begin for p in pick), ()))
    return _view(
        "Anatomy of an answer",
        [rule_controls(tau, beta), row],
        lambda tau, kind, beta, *key: state(*key, tau, kind, beta),
        [cells.legend()],
    )


def sweep(taus, lines, trace, pair, *, chosen, problems=(), label="τ = {:g}"):
    """Three lines over tau with a cursor, the Pareto plane with the chosen point, and answers that were recorded there.

    taus: nats; lines: {"accept ratio", "accuracy", "tokens per second"} -> one stats.Interval per tau (as
    plots.tau_lines takes); trace: recorded with methods labelled `label`; chosen: where the slider begins.
    """
    record, taus = cells.Record(trace, problems), list(taus)

    def state(tau, problem):
        key, i = (problem, record.seeds[0], label.format(tau)), taus.index(tau)
        words = f"τ = {tau:g} nats: " + ", ".join(
            f"{name} {v[i].show(3)}" for name, v in lines.items()
        )
        title = f"answer recorded at τ = {tau:g}"
        answer = (
            cells.answer(title, record.rows(key), rules.SP_entropy(tau), pair.tokenizer)
            if key in record.places
            else cells.lane(title, "none was recorded")
        )
        return {
            "picture": charts.sweep(taus, lines, i),
            "alt": words,
            "status": words,
            "lanes": [*record.question(problem), answer],
        }

    def slider():
        return [
            ui.SelectionSlider(
                options=[(f"{t:g}", t) for t in taus],
                value=chosen,
                description="τ, nats",
                continuous_update=False,
                **LOOK,
            )
        ]

    columns = {name: [v.show(3) for v in values] for name, values in lines.items()}
    table = cells.numbers(
        pd.DataFrame({"τ, nats": [f"{t:g}" for t in taus]} | columns), taus.index(chosen)
    )
    return _view(
        f"Sweep over τ; chosen: {chosen:g} nats",
        [Controls(slider, (chosen,)), choice("example", record.problems, record.problems[0])],
        state,
        [cells.legend()],
        table,
    )


def routing(trace, pair, problems=(), *, tau=None, problem_id=None):
    """A routed answer: tokens coloured by the model that spoke, and every model's entropy along it as lines.

    trace: rows of Routed answers, with columns H_draft and H_NAME (nats); tau marks the gate. Where a model was not
    asked, the pair reads the answers to `problems`.
    """
    record, known, own = cells.Record(trace, problems), {p.id: p for p in problems}, pair.copy()
    experts = [
        c.removeprefix("H_")
        for c in trace
        if c.startswith("H_") and c not in ("H_q", "H_p", "H_draft")
    ]
    names = ["draft", *experts]

    def state(problem):
        rows = record.rows(next(key for key in record.keys if key[0] == problem))
        if problem in known:
            rows = rows.assign(**probes.entropies(own, known[problem], list(rows.token)))
        shares = rows.source.str.removeprefix("expert:").value_counts()
        words = "tokens by " + ", ".join(
            f"{name} {shares[name]}" for name in names if name in shares
        )
        answer = cells.lane(
            f"answer to {problem}", words, cells.spoken(rows, pair.tokenizer, names)
        )
        return {
            "lanes": [*record.question(problem), answer],
            "picture": charts.routing(rows, names, tau),
            "alt": f"entropies along the answer; {words}",
            "below": True,
        }

    return _view(
        "Who spoke, and how sure those were who were asked",
        [choice("problem", record.problems, problem_id or record.problems[0])],
        state,
    )
