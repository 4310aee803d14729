"""Views with sliders: an answer's anatomy, live generation, a sweep over tau, a routed answer.

Each function returns a View. Where nobody can move a slider (papermill, nbval, a code host) it is static HTML and no
widget is made; in JupyterLab the same call shows the widget. Text reaches the page as text only (cells.py, widgets.js).
"""
import hashlib
import math
import os
import threading
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Callable, NamedTuple

import anywidget
import ipywidgets as ui
import pandas as pd
import traitlets

from helpers import cells, charts, experiments, probes, rules
from helpers.decoding import decode
from helpers.methods import Confidence, EntropyStop, Fixed, Speculative, SqrtEntropyStop
from helpers.sampling import Sampling
from helpers.tasks import Problem

TOP = 5.0           # right end of a tau slider, nats: there the gate is open everywhere
REDRAW_S = 0.1      # least time between two drawings of a running answer
LOOK = {"layout": {"width": "272px"}, "style": {"description_width": "84px"}}    # three controls in a row at 1280 px
RULES = {"√": 0.5, "power β": None, "accept all": 0.0}
POLICIES = {"fixed γ": (Fixed, ""), "stop where H(q) > threshold": (EntropyStop, "stop"),
            "stop where q(x) < threshold": (Confidence, "threshold"), "stop by AdaEDL's bound": (SqrtEntropyStop, "threshold")}


class Strips(anywidget.AnyWidget):
    """Lanes of tokens, a picture and a status line, drawn by widgets.js from plain data."""

    _esm = Path(__file__).with_name("widgets.js")
    _css = Path(__file__).with_name("widgets.css")
    lanes = traitlets.List().tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    failed = traitlets.Bool(False).tag(sync=True)
    beside = traitlets.Bool(False).tag(sync=True)       # lanes in two columns
    below = traitlets.Bool(False).tag(sync=True)        # the picture under the lanes
    follow = traitlets.Bool(False).tag(sync=True)       # keep the end of a growing lane in sight

    def show(self, state):
        """Draw what state() says, nothing where it says None; an error is a sentence in the view."""
        try:
            new = state()
            new = {} if new is None else {"status": "", "failed": False} | new
        except Exception as error:
            told = isinstance(error, (ValueError, RuntimeError, OSError, MemoryError))
            kind = "" if told else f"{type(error).__name__}: "
            new = {"status": f"This did not work: {kind}{error}", "failed": True}
        with self.hold_sync():
            for name, value in new.items():
                setattr(self, name, value)


def interactive():
    """Whether somebody can move sliders: a kernel that Jupyter, VS Code or Colab started, and no batch run."""
    started = any(name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"))
    return started and not os.environ.get("SP_QUIET")


@dataclass
class View:
    """What a call shows: `html` for everybody, and `widget`, made when it is first asked for."""

    html: str
    build: Callable[[], ui.Widget]

    @cached_property
    def widget(self):
        return self.build()

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self.html, "text/plain": "a view with sliders: run this cell in JupyterLab"}
        return bundle | self.widget._repr_mimebundle_() if interactive() else bundle


# ---- controls ------------------------------------------------------------------------------------------

class Controls(NamedTuple):
    """A row of controls: `make` returns the widgets, `begin` holds the values that they begin with."""

    make: Callable[[], list]
    begin: tuple


def _slider(value, top, name, kind=ui.FloatSlider, low=0, step=0.05, **more):
    return kind(value, min=low, max=top, step=step, description=name, continuous_update=False, **LOOK, **more)


def _choice(name, options, value):
    options = list(dict.fromkeys(options))
    return Controls(lambda: [ui.Dropdown(options=options, value=value, description=name, **LOOK)], (value,))


def _tied(name, options, kind, slider):
    """A choice that sets a slider. options: {choice: (value or None to leave it, whether it may be moved)}."""
    pick = ui.Dropdown(options=list(options), value=kind, description=name, **LOOK)

    def follow(*_):
        value, movable = options[pick.value]
        slider.disabled, slider.value = not movable, slider.value if value is None else value
    slider.disabled = not options[kind][1]
    pick.observe(follow, "value")
    return [pick, slider]


def _rule_controls(tau, beta):
    """A slider for tau, a choice of rule, a slider for beta; `_rule` reads their values."""
    tau, kind = min(tau, TOP), next((name for name, b in RULES.items() if b == beta), "power β")
    options = {name: (b, b is None) for name, b in RULES.items()}
    return Controls(lambda: [_slider(tau, TOP, "τ, nats", tooltip="at the right end the rule applies everywhere"),
                             *_tied("rule", options, kind, _slider(beta, 1, "β"))], (tau, kind, beta))


def _rule(tau, kind, beta):
    return rules.Gated(math.inf if tau >= TOP else tau, rules.Power(beta))


def _policy_controls(policy):
    """How long a block is drafted; `_policy` reads the values."""
    kind = next(name for name, (cls, _) in POLICIES.items() if cls is type(policy))
    options = {name: (getattr(cls(), field, None), bool(field)) for name, (cls, field) in POLICIES.items()}
    begin = (policy.gamma, kind, getattr(policy, POLICIES[kind][1], 1.0))
    return Controls(lambda: [_slider(policy.gamma, 16, "γ", ui.IntSlider, low=1, step=1),
                             *_tied("draft", options, kind, _slider(begin[2], TOP, "threshold"))], begin)


def _policy(gamma, kind, threshold):
    cls, field = POLICIES[kind]
    return cls(gamma, **({field: threshold} if field else {}))


def _row(children):
    return ui.HBox(children, layout={"flex_flow": "row wrap"})


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
        return ui.VBox([*map(_row, made), canvas])
    page = cells.html(heading, [*begin["lanes"], *legend], begin.get("picture", ""), begin.get("alt", ""), table,
                      begin.get("below", False))
    return View(page, build)


# ---- views of recorded work ----------------------------------------------------------------------------

def anatomy(trace, pair, problems=(), *, tau=1.0, beta=0.5, problem_id=None):
    """A recorded answer, every test decided again under another tau or rule.

    trace: what experiments.run(..., trace=True) recorded (any methods, problems, seeds), or one Generation's trace.
    problems: where given, the question stands above the answer. tau (nats) and beta are where the sliders begin. The
    view opens at problem_id, or at the answer with the most rescued, then most rejected tokens.
    """
    record = cells.Record(trace[~trace.method.isin(("AS_small", "AS_large"))] if "method" in trace else trace, problems)
    method = next((m for m in (f"τ = {tau:g}", "SP_entropy", "SP") if m in record.methods), record.methods[0])

    def events(key):
        rows = record.rows(key)
        return (rows.get("rescued", rows.token) == True).sum(), (rows.source == "residual").sum()     # noqa: E712
    able = [k for k in record.keys if k[2] == method and problem_id in (None, k[0])] or record.keys
    problem, seed, method = max(able, key=events)

    def state(problem, seed, method, *rule):
        rule, rows = _rule(*rule), record.rows((problem, seed, method))
        title = f"answer recorded with {method}, decided by: {cells.said(rule)}"
        return {"lanes": [*record.question(problem), cells.answer(title, rows, rule, pair.tokenizer)]}

    pick = (_choice("problem", record.problems, problem), _choice("seed", record.seeds, seed),
            _choice("recorded", record.methods, method))
    row = Controls(lambda: [c for p in pick for c in p.make()], sum((p.begin for p in pick), ()))
    return _view("Anatomy of an answer", [_rule_controls(tau, beta), row],
                 lambda tau, kind, beta, *key: state(*key, tau, kind, beta), [cells.legend()])


def sweep(taus, lines, trace, pair, *, chosen, problems=(), label="τ = {:g}"):
    """Three lines over tau with a cursor, the Pareto plane with the chosen point, and answers that were recorded there.

    taus: nats; lines: {"accept ratio", "accuracy", "tokens per second"} -> one stats.Interval per tau (as
    plots.tau_lines takes); trace: recorded with methods labelled `label`; chosen: where the slider begins.
    """
    record, taus = cells.Record(trace, problems), list(taus)

    def state(tau, problem):
        key, i = (problem, record.seeds[0], label.format(tau)), taus.index(tau)
        words = f"τ = {tau:g} nats: " + ", ".join(f"{name} {v[i].show(3)}" for name, v in lines.items())
        title = f"answer recorded at τ = {tau:g}"
        answer = (cells.answer(title, record.rows(key), rules.SP_entropy(tau), pair.tokenizer) if key in record.places
                  else cells.lane(title, "none was recorded"))
        return {"picture": charts.sweep(taus, lines, i), "alt": words, "status": words,
                "lanes": [*record.question(problem), answer]}

    def slider():
        return [ui.SelectionSlider(options=[(f"{t:g}", t) for t in taus], value=chosen, description="τ, nats",
                                   continuous_update=False, **LOOK)]
    columns = {name: [v.show(3) for v in values] for name, values in lines.items()}
    table = cells.numbers(pd.DataFrame({"τ, nats": [f"{t:g}" for t in taus]} | columns), taus.index(chosen))
    return _view(f"Sweep over τ; chosen: {chosen:g} nats", [Controls(slider, (chosen,)), _choice(
        "example", record.problems, record.problems[0])], state, [cells.legend()], table)


def routing(trace, pair, problems=(), *, tau=None, problem_id=None):
    """A routed answer: tokens coloured by the model that spoke, and every model's entropy along it as lines.

    trace: rows of Routed answers, with columns H_draft and H_NAME (nats); tau marks the gate. Where a model was not
    asked, the pair reads the answers to `problems`.
    """
    record, known, own = cells.Record(trace, problems), {p.id: p for p in problems}, pair.copy()
    experts = [c.removeprefix("H_") for c in trace if c.startswith("H_") and c not in ("H_q", "H_p", "H_draft")]
    names = ["draft", *experts]

    def state(problem):
        rows = record.rows(next(key for key in record.keys if key[0] == problem))
        if problem in known:
            rows = rows.assign(**probes.entropies(own, known[problem], list(rows.token)))
        shares = rows.source.str.removeprefix("expert:").value_counts()
        words = "tokens by " + ", ".join(f"{name} {shares[name]}" for name in names if name in shares)
        answer = cells.lane(f"answer to {problem}", words, cells.spoken(rows, pair.tokenizer, names))
        return {"lanes": [*record.question(problem), answer], "picture": charts.routing(rows, names, tau),
                "alt": f"entropies along the answer; {words}", "below": True}
    return _view("Who spoke, and how sure those were who were asked",
                 [_choice("problem", record.problems, problem_id or record.problems[0])], state)


# ---- live ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Job:
    """What one press of Run generates."""

    problem: Problem
    method: Speculative
    sampling: Sampling
    seed: int
    limit: int


def live(pair, problems, method=Speculative(rules.SP_entropy(1.0)), *, sampling=Sampling(), seed=0,
         max_new_tokens=None):
    """Strict and relaxed generation with the same uniforms, side by side, by the loaded pair.

    method: the relaxed Speculative where the controls begin. On the pocket pair a moved control generates at once.
    """
    rule = rules.Gated(math.inf, method.rule) if isinstance(method.rule, rules.Power) else method.rule
    if not (isinstance(rule, rules.Gated) and rule.gate == "low_entropy" and isinstance(rule.inner, rules.Power)):
        raise ValueError(f"the rule was {method.rule}; the live view has an entropy gate around a power rule")
    limit = max_new_tokens or problems[0].max_new_tokens
    job = Job(problems[0], replace(method, rule=rule), sampling, seed, limit)
    own = pair.copy()
    lanes = [generate(own, job, m) for m in both(job)]
    heading = f"Strict and relaxed, coupled: {job.problem.messages[-1]['content']}"
    return View(cells.html(heading, [*lanes, cells.legend()]), lambda: Live(own, problems, job, lanes).box)


def both(job):
    """The strict and the relaxed method of a job."""
    return replace(job.method, rule=rules.STRICT, label="SP"), job.method


def generate(pair, job, method, show=lambda lane: False):
    """Decode one answer, recorded. show(lane) is called while it grows; True ends it. Returns its lane."""
    begin, away, drawn = time.perf_counter(), 0.0, 0.0

    def strip(answer, seconds):
        rows = cells.redecide(pd.DataFrame(answer.trace), method.rule)
        ratio = f"{answer.accepted / answer.drafted:.3f}" if answer.drafted else "–"
        speed = f"{len(answer.tokens) / max(seconds, 1e-9):.0f} tokens/s while recording"
        numbers = (f"{len(answer.tokens)} tokens · {speed} · accept ratio {ratio} · "
                   f"target calls {answer.target_calls} · rescued {answer.rescued}")
        return cells.lane(cells.said(method.rule), numbers, cells.cells(rows, cells.texts(pair.tokenizer, rows.token)))

    def on_round(answers):
        nonlocal away, drawn
        since = time.perf_counter()
        if drawn and since - drawn < REDRAW_S:
            return show(None)
        stop = show(strip(answers[0], since - begin - away))
        drawn = time.perf_counter()
        away += drawn - since       # drawing is no part of the speed
        return stop

    prompt, key = pair.encode(job.problem.messages), experiments.key(job.seed, job.problem)
    answer, = decode(pair, method, [prompt], [key], sampling=job.sampling, max_new_tokens=job.limit,
                     stop=job.problem.stop, trace=True, on_round=on_round)
    return strip(answer, answer.seconds - away)


class Live:
    """The controls of the live view and its one worker: a new run cancels the one before and waits for its end."""

    def __init__(self, pair, problems, job, lanes):
        self.pair, self.base, self.worker, self.cancelled = pair, job, None, threading.Event()
        self.problems, self.kept = {p.id: p for p in problems}, None
        self.canvas = Strips(lanes=lanes, legend=[cells.legend()], beside=True, follow=True)
        self.rule = _rule_controls(job.method.rule.tau, job.method.rule.inner.beta).make()
        self.policy = _policy_controls(job.method.policy).make()
        self.heat = _slider(job.sampling.temperature, 2, "temperature")
        self.seed = ui.BoundedIntText(job.seed, min=0, max=10**6, description="seed", **LOOK)
        self.limit = ui.BoundedIntText(job.limit, min=1, max=4096, description="tokens", **LOOK)
        self.pick = ui.Dropdown(options=list(self.problems), value=job.problem.id, description="problem", **LOOK)
        self.prompt = ui.Textarea(job.problem.messages[-1]["content"], description="prompt", continuous_update=False,
                                  rows=2, layout={"width": "98%"}, style=LOOK["style"])
        self.auto = ui.Checkbox(pair.name == "pocket", description="run whenever a control moves", indent=False)
        run, stop = ui.Button(description="Run", button_style="primary"), ui.Button(description="Stop")
        run.on_click(self.run)
        stop.on_click(self.stop)
        self.pick.observe(self.ask, "value")
        numbers = [self.heat, self.seed, self.limit]
        for control in (*self.rule, *self.policy, *numbers, self.prompt):
            control.observe(lambda _: self.auto.value and self.run(), "value")
        rows = self.rule, self.policy, numbers, [self.pick, run, stop], [self.prompt], [self.auto]
        self.box = ui.VBox([*map(_row, rows), self.canvas])

    def ask(self, change):
        """Put the chosen problem's question into the prompt."""
        self.prompt.value = self.problems[change.new].messages[-1]["content"]

    def job(self):
        """What the controls ask for; free text is a problem of its own."""
        text, problem = self.prompt.value, self.problems[self.pick.value]
        if not text.strip():
            raise ValueError("the prompt is empty; type a question or choose a problem")
        if text != problem.messages[-1]["content"]:
            name = f"free-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
            problem = Problem(name, "free", ({"role": "user", "content": text},), None, self.limit.value, problem.stop)
        method = replace(self.base.method, rule=_rule(*(c.value for c in self.rule)),
                         policy=_policy(*(c.value for c in self.policy)))
        sampling = replace(self.base.sampling, temperature=self.heat.value)
        return Job(problem, method, sampling, self.seed.value, self.limit.value)

    def run(self, *_):
        """Cancel what runs and start anew, in a thread."""
        self.cancelled.set()
        self.cancelled = threading.Event()
        self.canvas.show(self.start)

    def start(self):
        """Start the worker on what the controls ask for."""
        self.worker = threading.Thread(target=self.work, args=(self.job(), self.cancelled, self.worker), daemon=True)
        self.canvas.status, self.canvas.failed = "generating", False
        self.worker.start()

    def stop(self, *_):
        """Cancel what runs; what it has made stays."""
        self.cancelled.set()
        if self.worker and self.worker.is_alive():
            self.canvas.status = "stopped"

    def work(self, job, cancelled, before=None):
        """Generate both answers of a job, drawing as they grow."""
        if before:
            before.join()
        begin = time.perf_counter()

        def state():
            lanes = self.lanes(job, cancelled)
            status = f"done in {time.perf_counter() - begin:.2f} s"
            return None if cancelled.is_set() else {"lanes": lanes, "status": status}
        if not cancelled.is_set():
            self.canvas.show(state)

    def lanes(self, job, cancelled):
        """Both answers as lanes. The strict one depends on neither tau nor rule: it is kept while those move."""
        strict, relaxed = both(job)
        same = replace(job, method=strict)
        waiting = cells.lane(cells.said(relaxed.rule), "waiting")
        if self.kept is None or self.kept[0] != same:
            lane = self.stream(strict, job, cancelled, lambda grown: [grown, waiting])
            self.kept = None if cancelled.is_set() else (same, lane)
        if cancelled.is_set():
            return []
        first = self.kept[1]
        return [first, self.stream(relaxed, job, cancelled, lambda grown: [first, grown])]

    def stream(self, method, job, cancelled, around):
        """One of the two answers, drawn while it grows unless the run is cancelled."""
        def show(grown):
            if grown and not cancelled.is_set():
                self.canvas.lanes = around(grown)
            return cancelled.is_set()
        return generate(self.pair, job, method, show)
