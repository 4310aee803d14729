"""Book-keeping of a batch: the growing sequences, what each answer has cost, and the clock."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pandas as pd
import torch

from helpers.decoding.sampling import uniforms

STOP_WINDOW = 24  # a stop text is looked for in so many last tokens


@dataclass
class Generation:
    """One answer: its tokens (with eos, if it came) and text, how it finished, what it cost.

    `seconds` begin when the prompt has been read (prefill_s stands apart) and hold draft_s,
    verify_s and host_s; a batch of several rows has no time per answer (NaN). `trace` has one row
    per tested or emitted position, where one was asked for.
    """

    tokens: list
    text: str = ""
    finish: str = "length"
    target_calls: int = 0
    draft_calls: int = 0
    drafted: int = 0
    accepted: int = 0
    rescued: int = 0
    rounds: int = 0
    switches: int = 0  # changes of speaker (Routed)
    caught_up: int = 0  # tokens that a model had to read because others had spoken (Routed)
    prefill_s: float = float("nan")
    seconds: float = float("nan")
    draft_s: float = float("nan")
    verify_s: float = float("nan")
    host_s: float = float("nan")
    trace: pd.DataFrame | list | None = None

    def copy(self):
        """The same answer so far, which goes on by itself."""
        trace = None if self.trace is None else list(self.trace)
        return replace(self, tokens=list(self.tokens), trace=trace)


@dataclass
class Round:
    """What one round adds to every row: its new tokens, and its trace rows where one is kept."""

    tokens: list[list[int]]
    trace: list[list[dict]] | None = None


class Batch:
    """The growing sequences of one batch, with their uniforms; finished rows leave it.

    `answers` are all Generations, first in the order of the prompts, `live` those of the rows that
    are still in the batch, and `ids` the places of these in `answers`. A row that parts (`part`)
    adds an answer; `prompt_of` says which prompt each of `answers` answers.
    """

    def __init__(self, pair, prompts, keys, max_new_tokens, stop, trace, per_round):
        self.pair = pair
        self.stop = stop
        self.max_new = max_new_tokens
        self.tracing = trace
        self.prompt = [len(p) for p in prompts]
        self.length = list(self.prompt)  # tokens in the sequence, a plain int per row
        # A row near its end may sit beside rows that draft on: it needs room for a round more.
        room = max(self.prompt) + max_new_tokens + per_round
        self.tokens = torch.zeros(len(prompts), room, dtype=torch.long, device=pair.device)
        for row, prompt in enumerate(prompts):
            self.tokens[row, : len(prompt)] = torch.tensor(prompt, device=pair.device)
        self.u = uniforms(keys, max_new_tokens + 1).to(pair.device)
        self.answers = [Generation([], trace=[] if trace else None) for _ in prompts]
        self.live = list(self.answers)
        self.ids = list(range(len(prompts)))
        self.prompt_of = list(self.ids)
        self.kept = {}  # what a decoder remembers, by name: tensors with a row per live answer
        self.models = ()
        self.finished = []
        self.clock = Clock(pair.device, phases=len(prompts) == 1)

    def read_prompts(self, *models):
        """Cache all of every prompt but its last token in these models."""
        self.models = models
        for lm in models:
            lm.prefill(self.tokens, self.prompt, self.tokens.shape[1])
        self.clock.prompts_are_read()

    def generated(self):
        """How many tokens each row has generated so far."""
        return [n - p for n, p in zip(self.length, self.prompt)]

    def tail(self, width):
        """The last `width` tokens of every row, (rows, width), and their first positions (ints).

        A row that is shorter begins at 0.
        """
        start = [max(n - width, 0) for n in self.length]
        first = torch.tensor(start, device=self.tokens.device)[:, None]
        cells = first + torch.arange(width, device=self.tokens.device)
        return self.tokens.gather(1, cells), start

    def next_scores(self, lm):
        """Scores of every row's next token, (rows, V); whatever the model's cache lacks is fed."""
        behind = max(n - c for n, c in zip(self.length, lm.memory.cached))
        tokens, start = self.tail(behind)
        hidden = lm.forward(tokens, start)
        lm.memory.cached = list(self.length)
        rows = torch.arange(len(start), device=hidden.device)
        last = torch.tensor([n - 1 - s for n, s in zip(self.length, start)], device=hidden.device)
        return lm.logits(hidden[rows, last])

    def uniforms_at(self, positions, purpose):
        """Uniforms of one purpose at a generated position per row (ints) -> (rows,)."""
        device = self.u.device
        rows = torch.arange(len(positions), device=device)
        return self.u[rows, torch.tensor(positions, device=device), purpose]

    def add(self, new):
        """Append a Round to every live row, and mark the rows that have finished."""
        self.finished = []
        for row, tokens in enumerate(new.tokens):
            self.live[row].rounds += 1
            if new.trace is not None:
                self.live[row].trace += new.trace[row]
            if self._append(row, tokens):
                self.finished.append(row)

    def _append(self, row, tokens):
        """Add tokens to a row, cut at eos, at a stop text, at the length. True when it is done."""
        answer = self.live[row]
        before = len(answer.tokens)
        for token in tokens:
            answer.tokens.append(token)
            if token in self.pair.eos:
                answer.finish = "eos"
            elif self._has_stop_text(answer):
                answer.finish = "stop"
            if answer.finish != "length" or len(answer.tokens) == self.max_new:
                break
        added = torch.tensor(answer.tokens[before:], device=self.tokens.device)
        begin = self.prompt[row] + before
        self.length[row] = self.prompt[row] + len(answer.tokens)
        self.tokens[row, begin : self.length[row]] = added
        return answer.finish != "length" or len(answer.tokens) >= self.max_new

    def _has_stop_text(self, answer):
        if not self.stop:
            return False
        end = self.pair.decode(answer.tokens[-STOP_WINDOW:])
        return any(text in end for text in self.stop)

    def drop_finished(self):
        """Take the rows that have finished out of the batch and out of every model's memory."""
        if not self.finished:
            return
        keep = [row for row in range(len(self.live)) if row not in self.finished]
        # The last rows move into the gaps, for a row is many megabytes.
        gaps = [row for row in self.finished if row < len(keep)]
        rows = list(range(len(keep)))
        for gap, row in zip(gaps, keep[len(keep) - len(gaps) :]):
            rows[gap] = row
        self._take(rows)

    def part(self, rows):
        """Double these rows (ints): each goes on by itself too, at the end of the batch."""
        numbers = [self.ids[row] for row in rows]
        self._take([*range(len(self.live)), *rows])
        for row, number in enumerate(numbers, len(self.live) - len(rows)):
            self.live[row] = self.live[row].copy()
            self.ids[row] = len(self.answers)
            self.answers.append(self.live[row])
            self.prompt_of.append(self.prompt_of[number])

    def _take(self, rows):
        """Make these rows the batch, here and in every model's memory."""
        self.live = [self.live[row] for row in rows]
        self.ids = [self.ids[row] for row in rows]
        if not rows:
            return
        index = torch.tensor(rows, device=self.tokens.device)
        self.tokens = self.tokens[index]
        self.u = self.u[index]
        self.kept = {name: tensor[index] for name, tensor in self.kept.items()}
        self.length = [self.length[row] for row in rows]
        self.prompt = [self.prompt[row] for row in rows]
        for lm in self.models:
            lm.memory.keep(rows)


def cut_at_stop(text, stop):
    """The text before the first of the stop texts."""
    for end in stop:
        text = text.split(end)[0]
    return text


class Clock:
    """Seconds by phase, where they are asked for.

    A GPU works through a queue that the host fills; to wait for it at every phase would slow down
    what is measured. So a phase leaves two events in the queue, and they are read at the end.
    """

    def __init__(self, device, phases):
        self.device = device
        self.phases = phases
        self.spent = {"draft": 0.0, "verify": 0.0}
        self.events = []  # (phase, first event, last event), on a GPU
        self.begin = self.now()
        self.prefill = float("nan")

    def prompts_are_read(self):
        """The prompts are in the caches: generation begins here."""
        now = self.now()
        self.prefill = now - self.begin
        self.begin = now

    def now(self):
        if self.phases:
            synchronise(self.device)
        return time.perf_counter()

    @contextmanager
    def phase(self, name):
        """Charge what happens inside to a phase."""
        if self.phases and self.device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self.events.append((name, first, last))
        else:
            since = time.perf_counter()
            yield
            self.spent[name] += time.perf_counter() - since

    def stop(self):
        """Seconds since the prompts were read; `spent` holds the phases from now on."""
        seconds = self.now() - self.begin
        for name, first, last in self.events:
            self.spent[name] += first.elapsed_time(last) / 1000
        self.events = []
        return seconds


def synchronise(device):
    """Wait for a GPU to finish; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize()
