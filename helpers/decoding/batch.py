"""Book-keeping of a batch: the growing sequences, what each answer has cost, and the clock."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pandas as pd
import torch

from helpers.decoding.sampling import uniforms

STOP_WINDOW = 24  # a stop text is looked for in so many last tokens
SHARE_FREE = 1 / 8  # of the rows, before answers that wait begin: reading a few prompts is slow


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

    At most `rows` prompts are answered at once; those that are `waiting` follow where rows have
    become free. `answers` are all Generations, first in the order of the prompts, `live` those of
    the rows that are in the batch, and `ids` the places of these in `answers`. A row that parts
    (`part`) adds an answer; `prompt_of` says which prompt each of `answers` answers.
    """

    def __init__(self, pair, prompts, keys, max_new_tokens, stop, trace, per_round, rows):
        self.pair = pair
        self.stop = stop
        self.max_new = max_new_tokens
        self.tracing = trace
        self.prompts = prompts
        self.keys = keys
        self.rows = rows
        # A row near its end may sit beside rows that draft on: it needs room for a round more.
        self.room = max(map(len, prompts)) + max_new_tokens + per_round
        self.answers = [Generation([], trace=[] if trace else None) for _ in prompts]
        self.prompt_of = list(range(len(prompts)))
        self.ids = self.prompt_of[:rows]
        self.waiting = self.prompt_of[rows:]
        self.live = [self.answers[number] for number in self.ids]
        self.prompt = [len(prompts[number]) for number in self.ids]
        self.length = list(self.prompt)  # tokens in the sequence, a plain int per row
        self.tokens, self.u = self._first_state(self.ids)
        self.kept = {}  # what a decoder remembers, by name: tensors with a row per live answer
        self.unwritten = {}  # what it remembers of new answers, by name: number of rows -> tensor
        self.models = ()
        self.finished = []
        self.clock = Clock(pair.device, phases=len(prompts) == 1)

    def _first_state(self, numbers):
        """Token memory and uniforms of these prompts: (rows, room), (rows, positions, purposes)."""
        tokens = torch.zeros(len(numbers), self.room, dtype=torch.long, device=self.pair.device)
        for row, number in enumerate(numbers):
            prompt = torch.tensor(self.prompts[number], device=self.pair.device)
            tokens[row, : len(prompt)] = prompt
        keys = [self.keys[number] for number in numbers]
        return tokens, uniforms(keys, self.max_new + 1).to(self.pair.device)

    def remember(self, name, of_new):
        """A decoder's tensor in `kept`; of_new(rows) is what it holds for rows that begin."""
        if name not in self.kept:
            self.unwritten[name] = of_new
            self.kept[name] = of_new(len(self.live))
        return self.kept[name]

    def read_prompts(self, *models):
        """Cache all of every prompt but its last token in these models."""
        self.models = models
        for lm in models:
            lm.prefill(self.tokens, self.prompt, self.room)
        self.clock.prompts_are_read()

    def admit(self):
        """Begin answers that wait, where enough rows are free to read their prompts together."""
        free = self.rows - len(self.live)
        if not self.waiting or (self.live and free < self.rows * SHARE_FREE):
            return
        numbers = self.waiting[:free]
        self.waiting = self.waiting[free:]
        tokens, u = self._first_state(numbers)
        lengths = [len(self.prompts[number]) for number in numbers]
        for lm in self.models:
            lm.add_rows(tokens, lengths)
        self.live += [self.answers[number] for number in numbers]
        self.ids += numbers
        self.prompt += lengths
        self.length += lengths
        self.tokens = torch.cat([self.tokens, tokens])
        self.u = torch.cat([self.u, u])
        for name, tensor in self.kept.items():
            if name not in self.unwritten:
                raise ValueError(
                    f"a decoder put {name!r} into batch.kept, and nothing says what it is for "
                    "an answer that begins; batch.remember does (helpers/README.md)"
                )
            self.kept[name] = torch.cat([tensor, self.unwritten[name](len(numbers))])

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
        index = torch.tensor(rows, dtype=torch.long, device=self.tokens.device)
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
