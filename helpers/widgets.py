"""Views with sliders: an answer's anatomy, live generation, a sweep over tau, a routed answer.

Each function returns a View. Where nobody can move a slider (papermill, nbval, a code host) it is static HTML and no widget
is made; in JupyterLab the same call shows the widget. Text reaches the page as text only (helpers/cells.py, widgets.js).
"""
import hashlib
import math
import os
import threading
import time
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Callable

import anywidget
import ipywidgets as ui
import pandas as pd
import traitlets

from helpers import cells, experiments, rules
from helpers.decoding import decode
from helpers.methods import Confidence, EntropyStop, Fixed, Speculative, SqrtEntropyStop
from helpers.sampling import Sampling
from helpers.tasks import Problem

TOP = 5.0           # right end of a tau slider, nats: there the gate is open everywhere
REDRAW_S = 0.1      # least time between two drawings of a running answer
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
    follow = traitlets.Bool(False).tag(sync=True)       # keep the end of a growing lane in sight


def interactive():
    """Whether somebody can move sliders: a kernel that Jupyter, VS Code or Colab started, and no batch run."""
    return not os.environ.get("SP_QUIET") and any(k in os.environ for k in ("JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"))


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


# ---- anatomy -------------------------------------------------------------------------------------------

def anatomy(trace, pair, problems=(), *, tau=1.0, beta=0.5, problem_id=None):
    """A recorded answer, every test decided again under another tau or rule.

    trace: what experiments.run(..., trace=True) recorded (any methods, problems, seeds), or one Generation's trace.
    problems: where given, the question stands above the answer. tau (nats) and beta are where the sliders begin.
    """
    answers = _answers(trace)
    question = {p.id: p.messages[-1]["content"] for p in problems}
    methods = list(dict.fromkeys(k[2] for k in answers))
    method = next((m for m in (f"τ = {tau:g}", "SP_entropy") if m in methods), methods[0])
    first = (problem_id, *next(k[1:2] for k in answers), method) if problem_id else next(k for k in answers if k[2] == method)

    def lanes(key, rule):
        if key not in answers:
            raise ValueError(f"there is no recorded answer to {key[0]} with seed {key[1]} by {key[2]}; choose others")
        asked = [cells.lane(f"question {key[0]}", question[key[0]])] if key[0] in question else []
        return [*asked, cells.answer(f"recorded with {key[2]}, decided by {said(rule)}", answers[key], rule, pair.tokenizer)]

    def build():
        rule, box = _rule_controls(tau, beta)
        pick = [ui.Dropdown(options=list(dict.fromkeys(k[i] for k in answers)), value=first[i], description=name)
                for i, name in enumerate(("problem", "seed", "recorded"))]
        canvas = Strips(legend=[cells.legend()])
        _redraw_on(canvas, [*pick, *box.children], lambda: {"lanes": lanes(tuple(p.value for p in pick), rule())})
        return ui.VBox([_row(*pick), box, canvas])

    begin = rules.Gated(tau, rules.Power(beta))
    return View(cells.html("Anatomy of an answer", [*lanes(first, begin), cells.legend()]), build)


def _answers(trace):
    """{(problem, seed, method): rows} of a trace; one Generation's trace is one answer."""
    trace = trace.assign(**{c: v for c, v in (("problem_id", "answer"), ("seed", 0), ("method", "recorded")) if c not in trace})
    return {k: rows for k, rows in trace.groupby(["problem_id", "seed", "method"], sort=False)}


def said(rule):
    """A rule in words."""
    if not isinstance(rule, rules.Gated):
        return "the strict rule" if rule == rules.STRICT else repr(rule)
    beta = rule.inner.beta
    name = {0.5: "√", 0.0: "accept all", 1.0: "strict"}.get(beta, f"power β = {beta:g}")
    return f"{name} everywhere" if math.isinf(rule.tau) else f"{name} where H(q) ≤ {rule.tau:g} nats, strict elsewhere"


def _rule_controls(tau, beta):
    """Sliders for tau and beta and a choice of rule. Returns (function -> rule, box)."""
    gate = ui.FloatSlider(min(tau, TOP), min=0, max=TOP, step=0.05, description="τ, nats", continuous_update=False,
                          tooltip="entropy gate; at the right end the rule applies everywhere")
    name = next((n for n, b in RULES.items() if b == beta), "power β")
    kind = ui.Dropdown(options=list(RULES), value=name, description="rule")
    power = ui.FloatSlider(beta, min=0, max=1, step=0.05, description="β", continuous_update=False, disabled=RULES[name] is not None)
    kind.observe(lambda change: setattr(power, "disabled", RULES[change.new] is not None), "value")

    def rule():
        b = power.value if RULES[kind.value] is None else RULES[kind.value]
        return rules.Gated(math.inf if gate.value >= TOP else gate.value, rules.Power(b))
    return rule, _row(gate, kind, power)


def _row(*children):
    return ui.HBox(children, layout=ui.Layout(flex_flow="row wrap"))


def _redraw_on(canvas, controls, state):
    """Draw now and whenever a control moves; an error is a sentence in the view."""
    def redraw(*_):
        try:
            new = {"status": "", "failed": False} | state()
        except Exception as error:
            new = {"status": sentence(error), "failed": True}
        with canvas.hold_sync():
            for name, value in new.items():
                setattr(canvas, name, value)
    for control in controls:
        control.observe(redraw, "value")
    redraw()


def sentence(error):
    """An exception as a sentence."""
    kind = "" if isinstance(error, (ValueError, RuntimeError, FileNotFoundError, MemoryError)) else f"{type(error).__name__}: "
    return f"This did not work: {kind}{error}"


# ---- live ----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Job:
    """What one press of Run generates."""

    problem: Problem
    method: Speculative
    sampling: Sampling
    seed: int
    limit: int


def live(pair, problems, method=Speculative(rules.SP_entropy(1.0)), *, sampling=Sampling(), seed=0, max_new_tokens=None):
    """Strict and relaxed generation with the same uniforms, side by side, by the loaded pair.

    method: the relaxed Speculative where the controls begin. On the pocket pair a moved control generates at once.
    """
    gated = isinstance(method.rule, (rules.Gated, rules.Power)) and getattr(method.rule, "gate", "low_entropy") == "low_entropy"
    if not gated or not isinstance(getattr(method.rule, "inner", method.rule), rules.Power):
        raise ValueError(f"the rule was {method.rule}; the live view has an entropy gate around a power rule")
    rule = method.rule if isinstance(method.rule, rules.Gated) else rules.Gated(math.inf, method.rule)
    limit = max_new_tokens or problems[0].max_new_tokens
    job = Job(problems[0], replace(method, rule=rule), sampling, seed, limit)
    own = replace(pair, draft=copy(pair.draft), target=copy(pair.target))   # the same weights, a cache of its own
    own.draft.memory = own.target.memory = None
    lanes = [generate(own, job, m) for m in both(job)]
    heading = f"Strict and relaxed, coupled: {job.problem.messages[-1]['content']}"
    return View(cells.html(heading, [*lanes, cells.legend()]), lambda: Live(own, problems, job, lanes).box)


def both(job):
    """The strict and the relaxed method of a job."""
    return replace(job.method, rule=rules.STRICT, label="SP"), job.method


def generate(pair, job, method, show=lambda lane: False):
    """Decode one answer, recorded. show(lane) is called while it grows; True ends it. Returns its lane."""
    begin, away = time.perf_counter(), 0.0

    def strip(answer, seconds):
        rows = cells.redecide(pd.DataFrame(answer.trace), method.rule)
        ratio = f"{answer.accepted / answer.drafted:.3f}" if answer.drafted else "–"
        numbers = (f"{len(answer.tokens)} tokens · {len(answer.tokens) / max(seconds, 1e-9):.0f} tokens/s (with recording) · accept ratio "
                   f"{ratio} · target calls {answer.target_calls} · rescued {answer.rescued}")
        return cells.lane(said(method.rule), numbers, cells.cells(rows, cells.texts(pair.tokenizer, rows.token)))

    drawn = 0.0

    def on_round(answers):
        nonlocal away, drawn
        since = time.perf_counter()
        if since - drawn < REDRAW_S and drawn:
            return show(None)
        stop = show(strip(answers[0], since - begin - away))
        drawn = time.perf_counter()
        away += drawn - since       # drawing is no part of the speed
        return stop

    answer, = decode(pair, method, [pair.encode(job.problem.messages)], [experiments.key(job.seed, job.problem)], sampling=job.sampling,
                     max_new_tokens=job.limit, stop=job.problem.stop, trace=True, on_round=on_round)
    return strip(answer, answer.seconds - away)


class Live:
    """The controls of the live view and its one worker: a new run cancels the one before and waits for its end."""

    def __init__(self, pair, problems, job, lanes):
        self.pair, self.worker, self.cancelled = pair, None, threading.Event()
        self.problems, self.strict = {p.id: p for p in problems}, {}
        self.canvas = Strips(lanes=lanes, legend=[cells.legend()], beside=True, follow=True)
        self.rule, rule_box = _rule_controls(job.method.rule.tau, job.method.rule.inner.beta)
        self.policy, policy_box = _policy_controls(job.method.policy)
        self.temperature = ui.FloatSlider(job.sampling.temperature, min=0, max=2, step=0.05, description="temperature", continuous_update=False)
        self.seed = ui.BoundedIntText(job.seed, min=0, max=10**6, description="seed")
        self.limit = ui.BoundedIntText(job.limit, min=1, max=4096, description="tokens")
        self.pick = ui.Dropdown(options=list(self.problems), value=job.problem.id, description="problem")
        self.prompt = ui.Textarea(job.problem.messages[-1]["content"], description="prompt", continuous_update=False, rows=3,
                                  layout=ui.Layout(width="95%"))
        self.auto = ui.Checkbox(pair.name == "pocket", description="run whenever a control moves", indent=False)
        run, stop = ui.Button(description="Run", button_style="primary"), ui.Button(description="Stop")
        run.on_click(self.run)
        stop.on_click(self.stop)
        self.pick.observe(lambda c: setattr(self.prompt, "value", self.problems[c.new].messages[-1]["content"]), "value")
        self.base = job
        row = (self.temperature, self.seed, self.limit)
        for control in (*rule_box.children, *policy_box.children, *row, self.prompt):
            control.observe(lambda _: self.auto.value and self.run(), "value")
        self.box = ui.VBox([rule_box, policy_box, _row(*row), self.pick, self.prompt, _row(run, stop, self.auto), self.canvas])

    def job(self):
        """What the controls ask for; free text is a problem of its own."""
        text, problem = self.prompt.value, self.problems[self.pick.value]
        if not text.strip():
            raise ValueError("the prompt is empty; type a question or choose a problem")
        if text != problem.messages[-1]["content"]:
            problem = Problem(f"free-{hashlib.sha256(text.encode()).hexdigest()[:10]}", "free", ({"role": "user", "content": text},), None, self.limit.value)
        return Job(problem, replace(self.base.method, rule=self.rule(), policy=self.policy()),
                   replace(self.base.sampling, temperature=self.temperature.value), self.seed.value, self.limit.value)

    def run(self, *_):
        """Cancel what runs and start anew, in a thread."""
        self.cancelled.set()
        self.cancelled = threading.Event()
        try:
            job = self.job()
        except ValueError as error:
            return self.tell(sentence(error), failed=True)
        self.worker = threading.Thread(target=self.work, args=(job, self.cancelled, self.worker), daemon=True)
        self.worker.start()

    def stop(self, *_):
        """Cancel what runs; what it has made stays."""
        self.cancelled.set()
        if self.worker and self.worker.is_alive():
            self.tell("stopped")

    def tell(self, status, failed=False):
        with self.canvas.hold_sync():
            self.canvas.status, self.canvas.failed = status, failed

    def work(self, job, cancelled, before=None):
        """Generate both answers of a job, drawing as they grow."""
        if before:
            before.join()
        if cancelled.is_set():
            return
        strict, relaxed = both(job)
        kept = replace(job, method=strict)
        lanes = [self.strict.get(kept) or cells.lane(said(strict.rule)), cells.lane(said(relaxed.rule), "waiting")]
        begin = time.perf_counter()
        try:
            for i, method in enumerate((strict, relaxed)):
                if i or kept not in self.strict:        # the strict answer does not depend on tau or the rule
                    lanes[i] = self.stream(i, method, job, lanes, cancelled)
                if cancelled.is_set():
                    return
                self.strict = {kept: lanes[0]}
            self.canvas.lanes = list(lanes)
            self.tell(f"done in {time.perf_counter() - begin:.2f} s")
        except Exception as error:
            self.tell(sentence(error), failed=True)

    def stream(self, i, method, job, lanes, cancelled):
        """One of the two answers, drawn while it grows unless the run is cancelled."""
        def show(grown):
            if grown and not cancelled.is_set():
                self.canvas.lanes = [grown if j == i else other for j, other in enumerate(lanes)]
            return cancelled.is_set()
        self.tell(f"generating: {said(method.rule)}")
        return generate(self.pair, job, method, show)


def _policy_controls(policy):
    """How long a block is drafted. Returns (function -> policy, box)."""
    name = next(n for n, (cls, _) in POLICIES.items() if cls is type(policy))
    kind = ui.Dropdown(options=list(POLICIES), value=name, description="draft")
    gamma = ui.IntSlider(policy.gamma, min=1, max=16, description="γ", continuous_update=False)
    begin = getattr(policy, POLICIES[name][1], 1.0)
    threshold = ui.FloatSlider(begin, min=0, max=TOP, step=0.05, description="threshold", continuous_update=False, disabled=not POLICIES[name][1])

    def switch(change):
        cls, field = POLICIES[change.new]
        threshold.disabled = not field
        if field:
            threshold.value = getattr(cls(), field)
    kind.observe(switch, "value")

    def chosen():
        cls, field = POLICIES[kind.value]
        return cls(gamma.value, **({field: threshold.value} if field else {}))
    return chosen, _row(kind, gamma, threshold)


# ---- sweep ---------------------------------------------------------------------------------------------

def sweep(taus, lines, trace, pair, *, chosen, problems=(), label="τ = {:g}"):
    """Three lines over tau with a cursor, the Pareto plane with the chosen point, and answers that were recorded there.

    taus: nats; lines: {"accept ratio", "accuracy", "tokens per second"} -> one stats.Interval per tau (as plots.tau_lines
    takes); trace: recorded with methods labelled `label`; chosen: where the slider begins.
    """
    answers, taus = _answers(trace), list(taus)
    ids = list(dict.fromkeys(k[0] for k in answers))
    seeds = list(dict.fromkeys(k[1] for k in answers))
    question = {p.id: p.messages[-1]["content"] for p in problems}

    def state(tau, problem):
        i, key = taus.index(tau), (problem, seeds[0], label.format(tau))
        said = f"τ = {tau:g} nats: " + ", ".join(f"{name} {v[i].show(3)}" for name, v in lines.items())
        example = [cells.answer(f"{problem}, recorded at τ = {tau:g}", answers[key], rules.SP_entropy(tau), pair.tokenizer)] if key in answers else [
            cells.lane(f"{problem}, τ = {tau:g}", "no answer was recorded here")]
        asked = [cells.lane(f"question {problem}", question[problem])] if problem in question else []
        return {"picture": _sweep_picture(taus, lines, i), "alt": said, "status": said, "lanes": asked + example}

    def build():
        tau = ui.SelectionSlider(options=[(f"{t:g}", t) for t in taus], value=chosen, description="τ, nats", continuous_update=False)
        pick = ui.Dropdown(options=ids, description="example")
        canvas = Strips(legend=[cells.legend()])
        _redraw_on(canvas, [tau, pick], lambda: state(tau.value, pick.value))
        return ui.VBox([_row(tau, pick), canvas])

    begin = state(chosen, ids[0])
    table = pd.DataFrame({"τ, nats": [f"{t:g}" for t in taus]} | {name: [v.show(3) for v in values] for name, values in lines.items()})
    return View(cells.html(f"Sweep over τ; chosen: {chosen:g} nats", begin["lanes"], begin["picture"], begin["alt"],
                           cells.numbers(table, bold=taus.index(chosen))), build)


def _sweep_picture(taus, lines, i):
    """The three lines and the Pareto plane, with tau number i marked."""
    x, names = range(len(taus)), [f"{t:g}" for t in taus]
    panels = [cells.panel(title, [cells.line(title, "#d55e00", x, [v.estimate for v in vs], [v.low for v in vs], [v.high for v in vs])],
                          x_label="τ, nats", x_names=names, cursor=i) for title, vs in lines.items()]
    speed, right = ([v.estimate for v in lines[name]] for name in ("tokens per second", "accuracy"))
    on = [k for k in x if not any((speed[j] >= speed[k] and right[j] > right[k]) or (speed[j] > speed[k] and right[j] >= right[k]) for j in x)]
    on.sort(key=lambda k: speed[k])
    return cells.chart([*panels, cells.panel("accuracy over tokens per second", [
        cells.line("Pareto front", "#0072b2", [speed[k] for k in on], [right[k] for k in on]),
        cells.line("", "#888888", speed, right, joined=False)][::-1], x_label="tokens per second", point=(speed[i], right[i]))])


# ---- routing -------------------------------------------------------------------------------------------

def routing(trace, pair, problems=(), *, tau=None, problem_id=None):
    """A routed answer: tokens coloured by the model that spoke, and the entropies of all that were asked as lines.

    trace: rows of Routed answers, with columns H_draft and H_NAME (nats) of each expert; tau marks the gate.
    """
    answers = _answers(trace)
    names = ["draft", *(c.removeprefix("H_") for c in trace if c.startswith("H_") and c not in ("H_q", "H_p", "H_draft"))]
    question = {p.id: p.messages[-1]["content"] for p in problems}
    keys = {k[0]: k for k in reversed(answers)}
    ids = list(keys)[::-1]
    first = problem_id or ids[0]

    def state(problem):
        rows = answers[keys[problem]].reset_index(drop=True)
        series = [cells.line(n, cells.SPEAKERS[names.index(n) % len(cells.SPEAKERS)][0] if n != "draft" else "#888888", rows.position, rows[f"H_{n}"])
                  for n in names if f"H_{n}" in rows and rows[f"H_{n}"].notna().any()]
        picture = cells.chart([cells.panel("entropy of the models that were asked, nats", series, x_label="position in the answer", level=tau)], 1000, 240)
        shares = rows.source.str.removeprefix("expert:").value_counts()
        said = "tokens by " + ", ".join(f"{n} {shares[n]}" for n in names if n in shares)
        asked = [cells.lane(f"question {problem}", question[problem])] if problem in question else []
        return {"lanes": [*asked, cells.lane(f"answer to {problem}", said, cells.spoken(rows, pair.tokenizer, names))],
                "picture": picture, "alt": f"entropies along the answer to {problem}; {said}"}

    def build():
        pick = ui.Dropdown(options=ids, value=first, description="problem")
        canvas = Strips()
        _redraw_on(canvas, [pick], lambda: state(pick.value))
        return ui.VBox([pick, canvas])

    begin = state(first)
    return View(cells.html("Who spoke, and how sure those were who were asked", begin["lanes"], begin["picture"], begin["alt"]), build)
