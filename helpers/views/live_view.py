"""Strict and relaxed generation side by side, by the loaded pair."""

import hashlib
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

import ipywidgets as ui
import pandas as pd

from helpers import experiments, rules, tasks
from helpers.decoding import decode
from helpers.methods import Sampling, Speculative
from helpers.tasks import Problem
from helpers.tasks.corpus import DOMAINS
from helpers.views import cells, offering, static
from helpers.views.controls import (
    LOOK,
    PolicyChoice,
    RuleChoice,
    control_row,
    long_menu,
    slider,
)
from helpers.views.deciding import as_written, describe
from helpers.views.strips import Strips, View

REDRAW_S = 0.1  # least time between two drawings of a running answer
TRIES = 3  # problems that are tried for one to open with
FREE = "free"  # the task of a prompt of the reader's own
KNOWS = (
    f"The pocket models know {len(DOMAINS)} kinds of question and nothing else: "
    f"{', '.join(DOMAINS[:-1])} and {DOMAINS[-1]}, worded as in the menu of pocket problems. Any "
    "other prompt gets nonsense."
)
MOVED = "The controls have moved: these are the answers from before. Press Run."


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
    runs=None,
    sampling=Sampling(),
    seed=0,
    max_new_tokens=None,
):
    """Strict and relaxed generation with the same uniforms, side by side, by the loaded pair.

    method: the relaxed Speculative where the controls begin, of any rule and policy. runs: the
    (answers, trace) of experiments.run(..., trace=True) with that method, where there are some: the
    menu then lists first the problems in whose answers something changes, and the view opens with
    one in which a rescue matters. On the pocket pair a moved control generates at once.
    """
    offers = _offers(runs, problems, method, seed)
    limit = max_new_tokens or problems[0].max_new_tokens
    own = pair.copy()  # a cell may decode with the pair while the view generates
    first = [offer.problem_id for offer in offers if offer.tau <= offering.gate(method.rule)][
        :TRIES
    ]
    by_id = {problem.id: problem for problem in problems}
    tried = []
    for problem_id in first or [problems[0].id]:
        job = Job(by_id[problem_id], method, sampling, seed, limit)
        tried.append((job, Pair(generate(own, job, job.strict), generate(own, job, job.method))))
        if tried[-1][1].differ == 2:
            break
    job, arms = max(tried, key=lambda each: each[1].differ)
    arms = in_turns(own, job, arms)
    question = job.problem.messages[-1]["content"]
    heading = f"Strict and relaxed, from the same random numbers: {question}"
    notes = [cells.lane("", KNOWS)] if pair.name == "pocket" else []
    page = static.page(heading, [*arms.lanes(), cells.legend(), *notes])
    return View(page, lambda: Live(own, problems, job, arms, offers).box)


def _offers(runs, problems, method, seed):
    """Offers of the problems that were recorded with a seed and a method, in order; [] without."""
    if runs is None:
        return []
    answers, trace = runs
    strict = offering.strict_method(trace)
    known = {problem.id for problem in problems}
    wanted = (trace.method == method.label) & (trace.seed == seed) & trace.problem_id.isin(known)
    if not wanted.any():
        raise ValueError(
            f"runs hold no answers of {method.label!r} with seed {seed} to these problems; give "
            "what experiments.run(..., trace=True) returned for them, or leave runs out"
        )
    return offering.offers(trace[wanted], method.rule, answers, strict)


# ---- one answer --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arm:
    """One of the two answers. score: NaN without a grade; seconds: what it took to write."""

    method: Speculative
    problem: Problem
    answer: object
    cells: list
    score: float
    seconds: float
    how: str = "while recording"

    def lane(self):
        """The lane of the answer, which may still grow."""
        answer = self.answer
        n = len(answer.tokens)
        grade = offering.verdict(self.score, self.problem)
        calls = answer.target_calls
        ratio = f"{answer.accepted / answer.drafted:.3f}" if answer.drafted else "–"
        parts = [
            f"target calls {calls}",
            f"{n / max(calls, 1):.2f} tokens per call",
            f"{n / max(self.seconds, 1e-9):.0f} tokens/s {self.how}",
            cells.plural(n, "token"),
            f"accept ratio {ratio}",
            f"rescued {answer.rescued}",
        ]
        title = describe(self.method.rule) + (f": {grade}" if grade else "")
        return cells.lane(title, " · ".join(parts), self.cells)


class Pair(NamedTuple):
    """The strict and the relaxed answer of one run."""

    strict: Arm
    relaxed: Arm

    def lanes(self):
        return [self.strict.lane(), self.relaxed.lane()]

    @property
    def differ(self):
        """2 where the scores differ, 1 where only the texts do, else 0."""
        if abs(self.strict.score - self.relaxed.score) > 0:
            return 2
        return int(self.strict.answer.tokens != self.relaxed.answer.tokens)


def generate(pair, job, method, show=lambda arm: False):
    """Decode one answer, recorded, with one of a job's methods. Returns its Arm.

    show(arm) is called after every round, with None where it is too early to draw again; True ends
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
        stop = show(_arm(pair, job, method, answers[0], now - begin - drawing))
        drawn = time.perf_counter()
        drawing += drawn - now
        return stop

    answer = _decode(pair, job, method, trace=True, on_round=on_round)
    score = math.nan
    if job.problem.task != FREE:
        score = tasks.grade(job.problem, answer.text).score
    return _arm(pair, job, method, answer, answer.seconds - drawing, score)


def _decode(pair, job, method, **more):
    """The answer of one of a job's methods."""
    (answer,) = decode(
        pair,
        method,
        [pair.encode(job.problem.messages)],
        [experiments.key(job.seed, job.problem)],
        sampling=job.sampling,
        max_new_tokens=job.limit,
        stop=job.problem.stop,
        **more,
    )
    return answer


def _arm(pair, job, method, answer, seconds, score=math.nan):
    """The Arm of a Generation, which may still grow. seconds: what it took so far."""
    rows = as_written(pd.DataFrame(answer.trace), method.rule)
    tokens = cells.answer_cells(rows, cells.texts(pair.tokenizer, rows.token))
    return Arm(method, job.problem, answer, tokens, score, seconds)


def in_turns(pair, job, arms, cancelled=lambda: False):
    """The same Pair with the times of both answers written once more, in turns, unrecorded.

    What a recording costs grows with what is recorded; a small pair's answers take so little time
    that both are written twice more, in turns, and the faster time of each counts. On a larger pair
    nobody should wait for that: the times of the two recordings stand.
    """
    if not pair.small:
        return arms
    fastest = [math.inf, math.inf]
    for i in (0, 1, 1, 0):
        answer = _decode(pair, job, arms[i].method, on_round=lambda _: cancelled())
        if cancelled():
            return arms
        fastest[i] = min(answer.seconds, fastest[i])
    return Pair(*(replace(arm, seconds=s, how="in turns") for arm, s in zip(arms, fastest)))


# ---- the widget --------------------------------------------------------------------------------


class Live:
    """The controls of the live view and its one worker.

    A new run cancels the one before and waits for its end.
    """

    def __init__(self, pair, problems, job, arms, offers=()):
        self.pair = pair
        self.begin = job
        self.shown = job  # what the answers on the canvas are of
        self.problems = {problem.id: problem for problem in problems}
        self.worker = None
        self.cancelled = threading.Event()
        self.canvas = Strips(lanes=arms.lanes(), legend=[cells.legend()], beside=True, follow=True)
        self.rule_choice = RuleChoice(job.method.rule)
        self.policy_choice = PolicyChoice(job.method.policy)
        self._make_controls(job, offers)
        self.box = self._layout()

    def _make_controls(self, job, offers):
        """Widgets that begin at a job's values."""
        self.rule = self.rule_choice.controls().make()
        self.policy = self.policy_choice.controls().make()
        self.temperature = slider(job.sampling.temperature, 2, "temperature")
        self.seed = ui.BoundedIntText(job.seed, min=0, max=10**6, description="seed", **LOOK)
        self.limit = ui.BoundedIntText(
            job.limit, min=1, max=self.pair.context, description="tokens", **LOOK
        )
        self.menu = long_menu("problem", self._lines(offers), job.problem.id)
        self.prompt = ui.Textarea(
            job.problem.messages[-1]["content"],
            description="prompt",
            continuous_update=False,
            rows=2,
            layout={"width": "98%"},
            style=LOOK["style"],
        )
        self.auto = ui.Checkbox(
            self.pair.name == "pocket",
            description="run whenever a control moves",
            indent=False,
            layout={"width": "260px"},
        )
        self._make_room()

    def _lines(self, offers):
        """[(line, problem id)] of the menu; the recorded ones come first."""
        recorded = {offer.problem_id: offer for offer in offers}
        lines = [
            (offering.words(offer, self.problems[problem_id]), problem_id)
            for problem_id, offer in recorded.items()
        ]
        for problem_id, problem in self.problems.items():
            if problem_id not in recorded:
                parts = offering.known(problem, problem_id, math.nan)
                lines.append((" · ".join(parts), problem_id))
        return lines

    def _make_room(self, *_):
        """Let "tokens" end at what the context allows behind the prompt."""
        with_prompt = self._messages(self.prompt.value)
        prompt = len(self.pair.encode(with_prompt))
        self.limit.max = max(1, self.pair.context - prompt)

    def _messages(self, text):
        """The chosen problem's messages, or a free prompt as the only one."""
        problem = self.problems[self.menu.value]
        if text == problem.messages[-1]["content"]:
            return problem.messages
        return ({"role": "user", "content": text},)

    def _layout(self):
        """The controls in rows, wired, above the canvas."""
        run_button = ui.Button(description="Run", button_style="primary")
        stop_button = ui.Button(description="Stop")
        run_button.on_click(self.run)
        stop_button.on_click(self.stop)
        self.menu.observe(self._copy_question, "value")
        self.prompt.observe(self._make_room, "value")
        numbers = [self.temperature, self.seed, self.limit]
        for control in (*self.rule, *self.policy, *numbers, self.prompt):
            control.observe(self._moved, "value")
        rows = [
            self.rule,
            self.policy,
            numbers,
            [self.menu],
            [self.prompt],
            [run_button, stop_button, self.auto],
        ]
        if self.pair.name == "pocket":
            rows.append([ui.HTML(KNOWS)])
        return ui.VBox([*map(control_row, rows), self.canvas])

    def _moved(self, _):
        """Generate anew, or say that the answers are those from before."""
        if self.auto.value:
            self.run()
            return
        self.canvas.old = self._asks_for_others()
        self.canvas.status = MOVED if self.canvas.old else ""
        self.canvas.failed = False

    def _asks_for_others(self):
        """Whether the controls ask for other answers than those that are shown."""
        try:
            return self.job() != self.shown
        except ValueError:  # Run says what is wrong
            return True

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
            FREE,
            self._messages(text),
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
        self.canvas.old = self._asks_for_others()
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
            arms = self._both(job, cancelled)
            if not cancelled.is_set():
                self.shown = job
                self.canvas.status = "timing" if self.pair.small else ""
                arms = in_turns(self.pair, job, arms, cancelled.is_set)
            status = f"done in {time.perf_counter() - begin:.2f} s"
            return None if cancelled.is_set() else {"lanes": arms.lanes(), "status": status}

        if not cancelled.is_set():
            self.canvas.show(state)

    def _both(self, job, cancelled):
        """The Pair of a job, both generated in this run and drawn while they grow."""
        waiting = cells.lane(describe(job.method.rule), "waiting")
        strict = self.stream(job, job.strict, cancelled, lambda lane: [lane, waiting])
        if cancelled.is_set():
            return None
        first = strict.lane()
        relaxed = self.stream(job, job.method, cancelled, lambda lane: [first, lane])
        return Pair(strict, relaxed)

    def stream(self, job, method, cancelled, beside):
        """One of the two answers, drawn while it grows unless the run is cancelled. Its Arm.

        beside: puts the growing lane into the pair of lanes.
        """

        def show(arm):
            if arm and not cancelled.is_set():
                with self.canvas.hold_sync():
                    self.canvas.lanes = beside(arm.lane())
                    self.canvas.old = False
            return cancelled.is_set()

        return generate(self.pair, job, method, show)
