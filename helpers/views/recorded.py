"""Views of recorded work: an answer's anatomy, a routed answer."""

import math

import ipywidgets as ui

from helpers import probes, rules
from helpers.plots.style import speakers_of
from helpers.views import cells, charts, offering, static
from helpers.views.controls import (
    LOOK,
    Controls,
    RuleChoice,
    control_row,
    long_menu,
    slider,
)
from helpers.views.deciding import describe, reroute
from helpers.views.strips import Strips, View

ROUTING_TOP = 3.0  # right end of the slider of a routed answer's tau, nats


class Record:
    """Recorded answers by (problem, seed, method), and the questions that they answer.

    trace: of many answers, or of one Generation, which says nothing of problem, seed and method.
    """

    def __init__(self, trace, problems):
        absent = {"problem_id": "answer", "seed": 0, "method": "recorded"}
        self.trace = trace.assign(**{n: value for n, value in absent.items() if n not in trace})
        self.places = self.trace.groupby(list(absent), sort=False).indices
        self.keys = sorted(self.places, key=lambda key: self.places[key][0])
        _, seeds, methods = zip(*self.keys)
        self.methods = list(dict.fromkeys(methods))
        self.has_seeds = len(set(seeds)) > 1
        self.problems = {problem.id: problem for problem in problems}

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
        if problem not in self.problems:
            return []
        return [cells.lane("question", self.problems[problem].messages[-1]["content"])]

    def offers(self, method, rule, answers):
        """Offers of one method's answers, those first in which `rule` changes something."""
        trace = self.trace[self.trace.method == method]
        return offering.offers(trace, rule, answers, offering.strict_method(self.trace))

    def menu(self, offers):
        """[(line, (problem, seed))] of a menu of these answers."""
        return [
            (
                offering.words(offer, self.problems.get(offer.problem_id), self.has_seeds),
                (offer.problem_id, offer.seed),
            )
            for offer in offers
        ]


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


def anatomy(
    trace,
    pair,
    problems=(),
    *,
    answers=None,
    rule=None,
    tau=1.0,
    beta=0.5,
    method=None,
    problem_id=None,
):
    """A recorded answer, every test decided again under another tau or rule.

    trace: what experiments.run(..., trace=True) recorded (any methods, problems, seeds), or one
    Generation's trace. problems: where given, the question stands above the answer; answers: the
    rows of that run, where given, say which answers are right. The controls begin at `rule`, any of
    helpers/rules or one of your own; without one, at the power rule beta below tau nats. The menu
    lists first the answers in which that rule changes something. The view opens with one recorded
    by `method`, with the answer to problem_id, or else with one in which a token is rescued and the
    score is another one for it.
    """
    if "method" in trace:
        trace = trace[~trace.method.isin(("AS_small", "AS_large"))]
    record = Record(trace, problems)
    rule_choice = RuleChoice(rules.SP_entropy(tau, beta) if rule is None else rule)
    offers = _Offers(record, rule_choice.rule, answers)
    if method is None:
        usual = (f"τ = {tau:g}", "SP_entropy", "SP")
        method = next((name for name in usual if name in record.methods), record.methods[0])
    answer = offers.opening(method, problem_id)

    def state(tau, kind, beta, method, answer):
        rule = rule_choice.read(tau, kind, beta)
        problem_id, seed = answer
        rows = record.rows((problem_id, seed, method))
        grade = offers.grade(method, answer)
        title = f"answer recorded with {method}{grade}, decided by: {describe(rule)}"
        tokens = cells.answer_lane(title, rows, rule, pair.tokenizer)
        return {"lanes": [*record.question(problem_id), tokens]}

    rule_row = rule_choice.controls()
    which = Controls(lambda: offers.menus(method, answer), (method, answer))
    rows = [rule_row, which]
    return _view("Anatomy of an answer", rows, state, [cells.legend()])


class _Offers:
    """What the two menus of an anatomy list: methods, and the answers of the chosen one."""

    def __init__(self, record, rule, answers):
        self.record = record
        self.rule = rule
        self.answers = answers
        self.by_method = {}

    def of(self, method):
        """{(problem, seed): Offer} of a method, in the order of the menu."""
        if method not in self.by_method:
            offers = self.record.offers(method, self.rule, self.answers)
            self.by_method[method] = {(offer.problem_id, offer.seed): offer for offer in offers}
        return self.by_method[method]

    def opening(self, method, problem_id):
        """The (problem, seed) to begin with."""
        known = self.of(method).values()
        asked = [offer for offer in known if problem_id in (None, offer.problem_id)]
        offer = offering.opening(asked or known, self.rule)
        return offer.problem_id, offer.seed

    def grade(self, method, answer):
        """The grade of an answer, to stand behind the name of its method."""
        offer = self.of(method).get(answer)
        words = offering.verdict(offer.score, self.record.problems.get(answer[0])) if offer else ""
        return f" ({words})" if words else ""

    def menus(self, method, answer):
        """Both menus; where another method is chosen, its answers are listed."""
        methods = ui.Dropdown(
            options=self.record.methods, value=method, description="recorded", **LOOK
        )
        listed = long_menu("answer", self.record.menu(self.of(method).values()), answer)

        def list_anew(change):
            before = listed.value
            known = self.of(change.new)
            listed.options = self.record.menu(known.values())
            listed.value = before if before in known else next(iter(known))

        methods.observe(list_anew, "value")
        return [methods, listed]


# ---- routing -----------------------------------------------------------------------------------


def routing(trace, pair, problems=(), *, answers=None, tau=None, back=None, problem_id=None):
    """A routed answer: tokens coloured by the model that spoke, above every model's entropy.

    trace: rows of Routed answers, with columns H_draft and H_NAME (nats); answers: the rows of that
    run, where given, say which answers are right; tau, back: the gates, nats. Where tau and back
    are given, a slider moves tau and takes every decision again. Where a model was not asked, the
    pair reads the answers to `problems`.
    """
    record = Record(trace, problems)
    own = pair.copy()  # a cell may use the pair while the view reads
    names = speakers_of(trace)
    routes = _Routes(record, own, names)
    scores = offering.scores_of(answers)
    offered = _routed_menu(record, scores)
    keys = [key for _, key in offered]
    first = next((key for key in keys if key[0] == problem_id), keys[0])
    moves = tau is not None and back is not None

    def state(key, at=tau):
        rows = routes.rows(key)
        speakers = rows.source.str.removeprefix("expert:").tolist()
        recorded = speakers
        if moves:
            speakers = reroute(rows, names, at, back) if at != tau else recorded
        by_name = ", ".join(f"{n} {speakers.count(n)}" for n in names if n in speakers)
        words = f"tokens by {by_name}"
        if moves:
            changed = sum(now != then for now, then in zip(speakers, recorded))
            words += f" · {cells.plural(changed, 'decision') if changed else 'no decision'} changed"
        tokens = cells.routed_cells(rows, cells.texts(pair.tokenizer, rows.token), names, speakers)
        verdict = offering.verdict(_score(scores, key), record.problems.get(key[0]))
        title = f"answer ({verdict})" if verdict else "answer"
        if moves:
            title += f", decided at τ = {at:g} nats"
        return {
            "lanes": [*record.question(key[0]), cells.lane(title, words, tokens)],
            "picture": charts.routing(rows, names, at),
            "alt": f"entropies along the answer; {words}",
            "below": True,
        }

    menu = Controls(lambda: [long_menu("answer", offered, first)], (first,))
    rows = [menu]
    if moves:
        top = max(ROUTING_TOP, tau)
        rows.append(Controls(lambda: [slider(tau, top, "τ, nats")], (tau,)))
    return _view("Which model wrote each token, and how sure each model was", rows, state)


class _Routes:
    """Traces of routed answers, with the entropies of all models where the question is known."""

    def __init__(self, record, pair, names):
        self.record = record
        self.pair = pair
        self.names = names
        self.read = {}

    def rows(self, key):
        """The trace of one answer."""
        if key not in self.read:
            rows = self.record.rows(key)
            if key[0] in self.record.problems:
                problem = self.record.problems[key[0]]
                rows = rows.assign(**probes.entropies(self.pair, problem, list(rows.token)))
            absent = [f"H_{name}" for name in self.names if f"H_{name}" not in rows]
            self.read[key] = rows.reindex(columns=[*rows, *absent])
        return self.read[key]


def _score(scores, key):
    """The score of an answer, NaN where it is not known."""
    problem, seed, method = key
    return scores.get((problem, seed), {}).get(method, math.nan)


def _routed_menu(record, scores):
    """[(line of a menu, key)] of routed answers, those in which experts speak first.

    A line says below which tau an expert speaks: the draft's largest entropy where one took over.
    """
    found = []
    for key in record.keys:
        rows = record.rows(key)
        took_over = rows.source.str.startswith("expert:")
        tau = rows.H_draft[took_over].max() if "H_draft" in rows else math.nan
        writes = "no expert writes" if math.isnan(tau) else f"experts write below τ = {tau:.2f}"
        problem = record.problems.get(key[0])
        parts = [writes, *offering.known(problem, key[0], _score(scores, key))]
        found.append((math.isnan(tau), key, " · ".join(parts)))
    found.sort(key=lambda each: each[0])
    return [(line, key) for _, key, line in found]
