"""Views of recorded work: an answer's anatomy, a routed answer."""

import ipywidgets as ui

from helpers import probes, rules
from helpers.plots.style import speakers_of
from helpers.views import cells, charts, static
from helpers.views.controls import (
    RuleChoice,
    choice,
    control_row,
    side_by_side,
)
from helpers.views.deciding import describe
from helpers.views.strips import Strips, View


class Record:
    """Recorded answers by (problem, seed, method), and the questions that they answer.

    trace: of many answers, or of one Generation, which says nothing of problem, seed and method.
    """

    def __init__(self, trace, problems):
        absent = {"problem_id": "answer", "seed": 0, "method": "recorded"}
        self.trace = trace.assign(**{n: value for n, value in absent.items() if n not in trace})
        self.places = self.trace.groupby(list(absent), sort=False).indices
        self.keys = sorted(self.places, key=lambda key: self.places[key][0])
        self.problems, self.seeds, self.methods = (
            list(dict.fromkeys(column)) for column in zip(*self.keys)
        )
        self.questions = {p.id: p.messages[-1]["content"] for p in problems}

    def rows(self, key):
        """The trace of one answer; an answer that is not there is an error."""
        if key not in self.places:
            problem, seed, method = key
            raise ValueError(
                f"there is no recorded answer to {problem} with seed {seed} by {method}; "
                "choose others"
            )
        return self.trace.iloc[self.places[key]].reset_index(drop=True)

    def question(self, problem):
        """The question as a list of lanes, empty where it is not known."""
        return (
            [cells.lane("question", self.questions[problem])] if problem in self.questions else []
        )


def _view(heading, rows, state, legend=()):
    """A View of recorded work.

    rows: of Controls; state: a function of the controls' values that returns traits of Strips;
    legend: lanes.
    """
    begin = state(*(value for row in rows for value in row.begin))

    def build():
        canvas = Strips(legend=list(legend))
        widgets = [row.make() for row in rows]
        controls = [control for row in widgets for control in row]

        def redraw(*_):
            canvas.show(lambda: state(*(control.value for control in controls)))

        for control in controls:
            control.observe(redraw, "value")
        redraw()
        return ui.VBox([*map(control_row, widgets), canvas])

    page = static.page(
        heading,
        [*begin["lanes"], *legend],
        begin.get("picture", ""),
        begin.get("alt", ""),
        below=begin.get("below", False),
    )
    return View(page, build)


# ---- anatomy -----------------------------------------------------------------------------------


def anatomy(trace, pair, problems=(), *, rule=None, tau=1.0, beta=0.5, problem_id=None):
    """A recorded answer, every test decided again under another tau or rule.

    trace: what experiments.run(..., trace=True) recorded (any methods, problems, seeds), or one
    Generation's trace. problems: where given, the question stands above the answer. The controls
    begin at `rule`, any of helpers/rules or one of your own; without one, at the power rule beta
    below tau nats. The view opens at problem_id, or at the answer with the most rescued, then most
    rejected tokens.
    """
    if "method" in trace:
        trace = trace[~trace.method.isin(("AS_small", "AS_large"))]
    record = Record(trace, problems)
    rule_choice = RuleChoice(rules.SP_entropy(tau, beta) if rule is None else rule)
    problem, seed, method = _opening(record, tau, problem_id)

    def state(tau, kind, beta, problem, seed, method):
        rule = rule_choice.read(tau, kind, beta)
        rows = record.rows((problem, seed, method))
        title = f"answer recorded with {method}, decided by: {describe(rule)}"
        answer = cells.answer_lane(title, rows, rule, pair.tokenizer)
        return {"lanes": [*record.question(problem), answer]}

    which = side_by_side(
        choice("problem", record.problems, problem),
        choice("seed", record.seeds, seed),
        choice("recorded", record.methods, method),
    )
    return _view("Anatomy of an answer", [rule_choice.controls(), which], state, [cells.legend()])


def _opening(record, tau, problem_id):
    """The key of the answer that an anatomy opens at."""
    usual = (f"τ = {tau:g}", "SP_entropy", "SP")
    method = next((name for name in usual if name in record.methods), record.methods[0])
    keys = [key for key in record.keys if key[2] == method and problem_id in (None, key[0])]

    def events(key):
        rows = record.rows(key)
        rescued = rows.rescued.eq(True).sum() if "rescued" in rows else 0
        return rescued, (rows.source == "residual").sum()

    return max(keys or record.keys, key=events)


# ---- routing -----------------------------------------------------------------------------------


def routing(trace, pair, problems=(), *, tau=None, problem_id=None):
    """A routed answer: tokens coloured by the model that spoke, above every model's entropy.

    trace: rows of Routed answers, with columns H_draft and H_NAME (nats); tau: the gate, nats.
    Where a model was not asked, the pair reads the answers to `problems`.
    """
    record = Record(trace, problems)
    by_id = {problem.id: problem for problem in problems}
    own = pair.copy()  # a cell may use the pair while the view reads
    names = speakers_of(trace)

    def state(problem):
        key = next(key for key in record.keys if key[0] == problem)
        rows = record.rows(key)
        if problem in by_id:
            read = probes.entropies(own, by_id[problem], list(rows.token))
            rows = rows.assign(**read)
        counts = rows.source.str.removeprefix("expert:").value_counts()
        by_name = ", ".join(f"{name} {counts[name]}" for name in names if name in counts)
        words = f"tokens by {by_name}"
        tokens = cells.routed_cells(rows, cells.texts(pair.tokenizer, rows.token), names)
        answer = cells.lane(f"answer to {problem}", words, tokens)
        return {
            "lanes": [*record.question(problem), answer],
            "picture": charts.routing(rows, names, tau),
            "alt": f"entropies along the answer; {words}",
            "below": True,
        }

    first = problem_id or record.problems[0]
    return _view(
        "Who spoke, and how sure those were who were asked",
        [choice("problem", record.problems, first)],
        state,
    )
