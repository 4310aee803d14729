"""Book-keeping of a batch: the growing sequences, what each answer has cost, and the clock."""

import time
from dataclasses import dataclass

import pandas as pd
import torch

from helpers.decoding.sampling import uniforms


@dataclass
class Generation:
    """One answer: tokens (with eos, if it came), text, how it finished, counts, seconds by phase, trace rows.

    `seconds` begin when the prompt has been read (prefill_s stands apart) and hold draft_s, verify_s and host_s.
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
    trace: pd.DataFrame | None = None


class Rows:
    """The growing sequences of one batch, their uniforms and counts; finished rows leave it."""

    def __init__(self, pair, prompts, keys, max_new_tokens, stop, trace, slack):
        self.pair, self.stop, self.max_new = pair, stop, max_new_tokens
        self.prompt = [len(p) for p in prompts]
        self.length = list(self.prompt)  # tokens in the sequence, a plain int per row
        room = (
            max(self.prompt) + max_new_tokens + slack
        )  # a row near its end may sit beside rows that draft on
        self.tokens = torch.zeros(len(prompts), room, dtype=torch.long, device=pair.device)
        for row, p in enumerate(prompts):
            self.tokens[row, : len(p)] = torch.tensor(p)
        self.u = uniforms(keys, max_new_tokens + 1).to(pair.device)
        self.all = [Generation([], trace=[] if trace else None) for _ in prompts]
        self.live = list(self.all)

    def made(self):
        """Tokens generated so far, per row."""
        return [n - p for n, p in zip(self.length, self.prompt)]

    def tail(self, width):
        """The last `width` tokens of every row (rows, width) and their first positions; a shorter row begins at 0."""
        start = [max(n - width, 0) for n in self.length]
        device = self.tokens.device
        return self.tokens.gather(
            1, torch.tensor(start, device=device)[:, None] + torch.arange(width, device=device)
        ), start

    def at(self, offsets, purpose):
        """Uniforms of one purpose at generated positions `offsets` (list per row) -> (rows,)."""
        return self.u[torch.arange(len(offsets)), torch.tensor(offsets), purpose]

    def append(self, row, new):
        """Add tokens (ints) to a row; cut at eos, at a stop text, at the length limit. True when the row is done."""
        answer = self.live[row]
        for token in new:
            answer.tokens.append(token)
            if token in self.pair.eos:
                answer.finish = "eos"
            elif self.stop and any(s in self.pair.decode(answer.tokens[-24:]) for s in self.stop):
                answer.finish = "stop"
            elif len(answer.tokens) < self.max_new:
                continue
            break
        n = len(answer.tokens)
        self.tokens[row, self.prompt[row] : self.prompt[row] + n] = torch.tensor(
            answer.tokens, device=self.tokens.device
        )
        self.length[row] = self.prompt[row] + n
        return answer.finish != "length" or n >= self.max_new

    def drop(self, done, *models):
        """Take finished rows out of the batch and out of every model's memory."""
        keep = [i for i in range(len(self.live)) if i not in done]
        if not done or not keep:
            self.live = [self.live[i] for i in keep]
            return
        index = torch.tensor(keep, device=self.tokens.device)
        self.tokens, self.u = self.tokens[index], self.u[index]
        self.length, self.prompt = [self.length[i] for i in keep], [self.prompt[i] for i in keep]
        self.live = [self.live[i] for i in keep]
        for lm in models:
            lm.memory.keep(keep)


class Clock:
    """Seconds by phase. Synchronises a GPU only where phases are asked for, so that a round stays asynchronous."""

    def __init__(self, device, phases):
        self.cuda, self.phases = device.type == "cuda", phases
        self.spent = {"draft": 0.0, "verify": 0.0}
        self.begin = self.now()
        self.prefill = float("nan")

    def prompt_read(self):
        """The prompt is in the caches: generation begins here."""
        now = self.now()
        self.prefill, self.begin = now - self.begin, now

    def now(self):
        if self.cuda and self.phases:
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, phase, since):
        self.spent[phase] += self.now() - since
