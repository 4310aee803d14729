"""Strict and relaxed generation side by side, by the loaded pair."""

import hashlib
import threading
import time
from dataclasses import dataclass, replace

import ipywidgets as ui
import pandas as pd

from helpers import experiments, rules
from helpers.decoding import decode
from helpers.methods import Sampling, Speculative
from helpers.tasks import Problem
from helpers.views import cells, static
from helpers.views.controls import LOOK, PolicyChoice, RuleChoice, control_row, slider
from helpers.views.deciding import describe, redecide
from helpers.views.strips import Strips, View

REDRAW_S = 0.1  # least time between two drawings of a running answer


@dataclass(frozen=True)
class Job:
    """What one press of Run generates; method is the relaxed one."""

    problem: Problem
    method: Speculative
    sampling: Sampling
    seed: int
    limit: int

    @property
    def strict(self):
        """The method that the relaxed one is compared with."""
        return replace(self.method, rule=rules.STRICT, label="SP")


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

    method: the relaxed Speculative where the controls begin, of any rule and policy. On the pocket
    pair a moved control generates at once.
    """
    limit = max_new_tokens or problems[0].max_new_tokens
    job = Job(problems[0], method, sampling, seed, limit)
    own = pair.copy()  # a cell may decode with the pair while the view generates
    lanes = [generate(own, job, job.strict), generate(own, job, job.method)]
    heading = f"Strict and relaxed, coupled: {job.problem.messages[-1]['content']}"
    page = static.page(heading, [*lanes, cells.legend()])
    return View(page, lambda: Live(own, problems, job, lanes).box)


# ---- one answer --------------------------------------------------------------------------------


def generate(pair, job, method, show=lambda lane: False):
    """Decode one answer, recorded, with one of a job's methods. Returns its lane.

    show(lane) is called after every round, with None where it is too early to draw again; True ends
    the answer where it is.
    """
    begin = time.perf_counter()
    drawing = 0.0  # seconds, which are no part of the speed
    drawn = None  # when the last drawing was finished

    def on_round(answers):
        nonlocal drawing, drawn
        now = time.perf_counter()
        if drawn is not None and now - drawn < REDRAW_S:
            return show(None)
        stop = show(_lane(pair, method, answers[0], now - begin - drawing))
        drawn = time.perf_counter()
        drawing += drawn - now
        return stop

    (answer,) = decode(
        pair,
        method,
        [pair.encode(job.problem.messages)],
        [experiments.key(job.seed, job.problem)],
        sampling=job.sampling,
        max_new_tokens=job.limit,
        stop=job.problem.stop,
        trace=True,
        on_round=on_round,
    )
    return _lane(pair, method, answer, answer.seconds - drawing)


def _lane(pair, method, answer, seconds):
    """The lane of a Generation, which may still grow. seconds: what it took so far."""
    rows = redecide(pd.DataFrame(answer.trace), method.rule)
    speed = len(answer.tokens) / max(seconds, 1e-9)
    ratio = f"{answer.accepted / answer.drafted:.3f}" if answer.drafted else "–"
    summary = (
        f"{len(answer.tokens)} tokens · {speed:.0f} tokens/s while recording · "
        f"accept ratio {ratio} · target calls {answer.target_calls} · rescued {answer.rescued}"
    )
    tokens = cells.answer_cells(rows, cells.texts(pair.tokenizer, rows.token))
    return cells.lane(describe(method.rule), summary, tokens)


# ---- the widget --------------------------------------------------------------------------------


class Live:
    """The controls of the live view and its one worker.

    A new run cancels the one before and waits for its end.
    """

    def __init__(self, pair, problems, job, lanes):
        self.pair = pair
        self.begin = job
        self.problems = {problem.id: problem for problem in problems}
        self.kept = None  # (job, lane) of the last strict answer
        self.worker = None
        self.cancelled = threading.Event()
        self.canvas = Strips(lanes=lanes, legend=[cells.legend()], beside=True, follow=True)
        self.rule_choice = RuleChoice(job.method.rule)
        self.policy_choice = PolicyChoice(job.method.policy)
        self._make_controls(job)
        self.box = self._layout()

    def _make_controls(self, job):
        """Widgets that begin at a job's values."""
        self.rule = self.rule_choice.controls().make()
        self.policy = self.policy_choice.controls().make()
        self.temperature = slider(job.sampling.temperature, 2, "temperature")
        self.seed = ui.BoundedIntText(job.seed, min=0, max=10**6, description="seed", **LOOK)
        self.limit = ui.BoundedIntText(job.limit, min=1, max=4096, description="tokens", **LOOK)
        self.menu = ui.Dropdown(
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
            self.pair.name == "pocket", description="run whenever a control moves", indent=False
        )

    def _layout(self):
        """The controls in rows, wired, above the canvas."""
        run_button = ui.Button(description="Run", button_style="primary")
        stop_button = ui.Button(description="Stop")
        run_button.on_click(self.run)
        stop_button.on_click(self.stop)
        self.menu.observe(self._copy_question, "value")
        numbers = [self.temperature, self.seed, self.limit]
        for control in (*self.rule, *self.policy, *numbers, self.prompt):
            control.observe(self._moved, "value")
        rows = (
            self.rule,
            self.policy,
            numbers,
            [self.menu, run_button, stop_button],
            [self.prompt],
            [self.auto],
        )
        return ui.VBox([*map(control_row, rows), self.canvas])

    def _moved(self, _):
        if self.auto.value:
            self.run()

    def _copy_question(self, change):
        """Put the chosen problem's question into the prompt."""
        self.prompt.value = self.problems[change.new].messages[-1]["content"]

    def job(self):
        """What the controls ask for."""
        method = replace(
            self.begin.method,
            rule=self.rule_choice.read(*(control.value for control in self.rule)),
            policy=self.policy_choice.read(*(control.value for control in self.policy)),
        )
        sampling = replace(self.begin.sampling, temperature=self.temperature.value)
        return Job(self._problem(), method, sampling, self.seed.value, self.limit.value)

    def _problem(self):
        """The chosen problem, or a problem of its own where the prompt is another text."""
        text = self.prompt.value
        problem = self.problems[self.menu.value]
        if not text.strip():
            raise ValueError("the prompt is empty; type a question or choose a problem")
        if text == problem.messages[-1]["content"]:
            return problem
        return Problem(
            f"free-{hashlib.sha256(text.encode()).hexdigest()[:10]}",
            "free",
            ({"role": "user", "content": text},),
            None,
            self.limit.value,
            problem.stop,
        )

    def run(self, *_):
        """Cancel what runs and start anew, in a thread."""
        self.cancelled.set()
        self.cancelled = threading.Event()
        self.canvas.show(self._start)

    def _start(self):
        """Start the worker on what the controls ask for."""
        job = self.job()
        self.worker = threading.Thread(
            target=self.work, args=(job, self.cancelled, self.worker), daemon=True
        )
        self.canvas.status = "generating"
        self.canvas.failed = False
        self.worker.start()

    def stop(self, *_):
        """Cancel what runs; the tokens that are there stay."""
        self.cancelled.set()
        if self.worker and self.worker.is_alive():
            self.canvas.status = "stopped"

    def work(self, job, cancelled, before=None):
        """Generate both answers of a job, drawing as they grow, after the thread `before`."""
        if before:
            before.join()
        begin = time.perf_counter()

        def state():
            lanes = self._both_lanes(job, cancelled)
            status = f"done in {time.perf_counter() - begin:.2f} s"
            return None if cancelled.is_set() else {"lanes": lanes, "status": status}

        if not cancelled.is_set():
            self.canvas.show(state)

    def _both_lanes(self, job, cancelled):
        """Both answers as lanes.

        The strict one depends on neither tau nor rule: it is kept while those move.
        """
        same = replace(job, method=job.strict)
        waiting = cells.lane(describe(job.method.rule), "waiting")
        if self.kept is None or self.kept[0] != same:
            strict = self.stream(job, job.strict, cancelled, lambda lane: [lane, waiting])
            self.kept = None if cancelled.is_set() else (same, strict)
        if cancelled.is_set():
            return []
        _, strict = self.kept
        return [strict, self.stream(job, job.method, cancelled, lambda lane: [strict, lane])]

    def stream(self, job, method, cancelled, beside):
        """One of the two answers, drawn while it grows unless the run is cancelled. Its lane.

        beside: puts the growing lane into the pair of lanes.
        """

        def show(lane):
            if lane and not cancelled.is_set():
                self.canvas.lanes = beside(lane)
            return cancelled.is_set()

        return generate(self.pair, job, method, show)
