"""Strict and relaxed generation side by side, by the loaded pair."""

import hashlib
import math
import threading
import time
from dataclasses import dataclass, replace

import ipywidgets as ui
import pandas as pd

from helpers import experiments, rules
from helpers.decoding import decode
from helpers.methods import Sampling, Speculative
from helpers.tasks import Problem
from helpers.views import cells
from helpers.views.controls import (
    LOOK,
    control_row,
    policy_controls,
    policy_from,
    rule_controls,
    rule_from,
    slider,
)
from helpers.views.strips import Strips, View

REDRAW_S = 0.1  # least time between two drawings of a running answer


# ---- live ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What one press of Run generates."""

    problem: Problem
    method: Speculative
    sampling: Sampling
    seed: int
    limit: int


def live(
    pair,
    problems,
    method=Speculative(rules.SP_entropy(1.0)),
    *,
    sampling=Sampling(),
    seed=0,
    max_new_tokens=None,
):
    """Strict and relaxed generation with the same uniforms, side by side, by the loaded pair.

    method: the relaxed Speculative where the controls begin. On the pocket pair a moved control generates at once.
    """
    rule = (
        rules.Gated(math.inf, method.rule) if isinstance(method.rule, rules.Power) else method.rule
    )
    if not (
        isinstance(rule, rules.Gated)
        and rule.gate == "low_entropy"
        and isinstance(rule.inner, rules.Power)
    ):
        raise ValueError(
            f"the rule was {method.rule}; the live view has an entropy gate around a power rule"
        )
    limit = max_new_tokens or problems[0].max_new_tokens
    job = Job(problems[0], replace(method, rule=rule), sampling, seed, limit)
    own = pair.copy()
    lanes = [generate(own, job, m) for m in both(job)]
    heading = f"Strict and relaxed, coupled: {job.problem.messages[-1]['content']}"
    return View(
        cells.html(heading, [*lanes, cells.legend()]), lambda: Live(own, problems, job, lanes).box
    )


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
        numbers = (
            f"{len(answer.tokens)} tokens · {speed} · accept ratio {ratio} · "
            f"target calls {answer.target_calls} · rescued {answer.rescued}"
        )
        return cells.lane(
            cells.said(method.rule),
            numbers,
            cells.cells(rows, cells.texts(pair.tokenizer, rows.token)),
        )

    def on_round(answers):
        nonlocal away, drawn
        since = time.perf_counter()
        if drawn and since - drawn < REDRAW_S:
            return show(None)
        stop = show(strip(answers[0], since - begin - away))
        drawn = time.perf_counter()
        away += drawn - since  # drawing is no part of the speed
        return stop

    prompt, key = pair.encode(job.problem.messages), experiments.key(job.seed, job.problem)
    (answer,) = decode(
        pair,
        method,
        [prompt],
        [key],
        sampling=job.sampling,
        max_new_tokens=job.limit,
        stop=job.problem.stop,
        trace=True,
        on_round=on_round,
    )
    return strip(answer, answer.seconds - away)


class Live:
    """The controls of the live view and its one worker: a new run cancels the one before and waits for its end."""

    def __init__(self, pair, problems, job, lanes):
        self.pair, self.base, self.worker, self.cancelled = pair, job, None, threading.Event()
        self.problems, self.kept = {p.id: p for p in problems}, None
        self.canvas = Strips(lanes=lanes, legend=[cells.legend()], beside=True, follow=True)
        self.rule = rule_controls(job.method.rule.tau, job.method.rule.inner.beta).make()
        self.policy = policy_controls(job.method.policy).make()
        self.heat = slider(job.sampling.temperature, 2, "temperature")
        self.seed = ui.BoundedIntText(job.seed, min=0, max=10**6, description="seed", **LOOK)
        self.limit = ui.BoundedIntText(job.limit, min=1, max=4096, description="tokens", **LOOK)
        self.pick = ui.Dropdown(
            options=list(self.problems), value=job.problem.id, description="problem", **LOOK
        )
        self.prompt = ui.Textarea(
            job.problem.messages[-1]["content"],
            description="prompt",
            continuous_update=False,
            rows=2,
            layout={"width": "98%"},
            style=LOOK["style"],
        )
        self.auto = ui.Checkbox(
            pair.name == "pocket", description="run whenever a control moves", indent=False
        )
        run, stop = (
            ui.Button(description="Run", button_style="primary"),
            ui.Button(description="Stop"),
        )
        run.on_click(self.run)
        stop.on_click(self.stop)
        self.pick.observe(self.ask, "value")
        numbers = [self.heat, self.seed, self.limit]
        for control in (*self.rule, *self.policy, *numbers, self.prompt):
            control.observe(lambda _: self.auto.value and self.run(), "value")
        rows = self.rule, self.policy, numbers, [self.pick, run, stop], [self.prompt], [self.auto]
        self.box = ui.VBox([*map(control_row, rows), self.canvas])

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
            problem = Problem(
                name,
                "free",
                ({"role": "user", "content": text},),
                None,
                self.limit.value,
                problem.stop,
            )
        method = replace(
            self.base.method,
            rule=rule_from(*(c.value for c in self.rule)),
            policy=policy_from(*(c.value for c in self.policy)),
        )
        sampling = replace(self.base.sampling, temperature=self.heat.value)
        return Job(problem, method, sampling, self.seed.value, self.limit.value)

    def run(self, *_):
        """Cancel what runs and start anew, in a thread."""
        self.cancelled.set()
        self.cancelled = threading.Event()
        self.canvas.show(self.start)

    def start(self):
        """Start the worker on what the controls ask for."""
        self.worker = threading.Thread(
            target=self.work, args=(self.job(), self.cancelled, self.worker), daemon=True
        )
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
