"""Looking at single positions: both models read given answers.

Teacher-forced, so that an error at one position is not mixed up with the drift it causes later.
"""

from typing import NamedTuple

import pandas as pd
import torch

from helpers import rules, taking_turns
from helpers.common import track
from helpers.decoding.sampling import ACCEPT, DRAFT, GATE, accepts, sample, uniforms
from helpers.experiments import key
from helpers.methods import Sampling

LARGE_VOCABULARY = 20_000  # above it, scores of one answer at a time are kept in memory


class Reading(NamedTuple):
    """What both models say at N positions of given answers.

    frame: problem_id, position, token; u: the job's uniforms (N, purposes); raw_q and raw_p: the
    unwarped distributions (N, V), whose entropies gates take; q and p are sampled from;
    best_scores: the target's two largest scores (N, 2).
    """

    frame: pd.DataFrame
    u: torch.Tensor
    raw_q: torch.Tensor
    q: torch.Tensor
    raw_p: torch.Tensor
    p: torch.Tensor
    best_scores: torch.Tensor

    def signals(self):
        """What a gate or a rule may look at here; the drafted token is the text's."""
        device = self.p.device
        token = torch.tensor(self.frame.token.to_list(), device=device)
        position = torch.tensor(self.frame.position.to_list(), device=device)
        H_q = rules.entropy(self.raw_q)
        return rules.Signals(
            H_q,
            H_p=rules.entropy(self.raw_p),
            max_q=self.raw_q.amax(-1),
            u_gate=self.u[:, GATE],
            position=position,
            previous=torch.where(position > 0, token.roll(1), rules.NO_TOKEN),
            H_recent=rules.recent(H_q, position),
            laws=rules.Laws(self.p, self.q, self.raw_p, self.raw_q, token, self.best_scores),
        )


def read(pair, problems, answers, *, seed=0, sampling=Sampling(), batch_size=32):
    """Read given answers (token lists) with both models. Yields a Reading for some at a time."""
    readings = _readings(pair, problems, answers, seed, sampling, batch_size)
    return taking_turns.each_together(readings)


@torch.inference_mode()
def _readings(pair, problems, answers, seed, sampling, batch_size):
    size = batch_size if pair.draft.vocab_size < LARGE_VOCABULARY else 1
    longest_prompt = max(len(pair.encode(problem.messages)) for problem in problems)
    room = longest_prompt + max(len(answer) for answer in answers)
    for i in track(range(0, len(answers), size), "reading"):
        some_problems = problems[i : i + size]
        some_answers = [list(answer) for answer in answers[i : i + size]]
        q, p = _scores(pair, some_problems, some_answers, room)
        frames = []
        u = []
        for problem, answer in zip(some_problems, some_answers):
            positions = range(len(answer))
            columns = {"problem_id": problem.id, "position": positions, "token": answer}
            frames.append(pd.DataFrame(columns))
            u.append(uniforms([key(seed, problem)], len(answer))[0])
        yield Reading(
            frame=pd.concat(frames),
            u=torch.cat(u).to(pair.device),
            raw_q=q.softmax(-1),
            q=sampling.warp(q),
            raw_p=p.softmax(-1),
            p=sampling.warp(p),
            best_scores=p.topk(2, -1).values,
        )


def _scores(pair, problems, answers, room):
    """The draft's and the target's scores at every position of some answers, (N, V) each."""
    prompts = [list(pair.encode(problem.messages)) for problem in problems]
    lengths = [len(prompt) for prompt in prompts]
    tokens = _padded(prompts, pair.device)
    # Each answer is fed after the last token of its prompt, and its own last token is not.
    fed = _padded([prompt[-1:] + answer for prompt, answer in zip(prompts, answers)], pair.device)
    scores = []
    for lm in (pair.draft, pair.target):
        lm.prefill(tokens, lengths, room)
        hidden = lm.forward(fed[:, :-1], [n - 1 for n in lengths])
        wanted = [row[: len(answer)] for row, answer in zip(hidden, answers)]
        scores.append(lm.logits(torch.cat(wanted)))
    return scores


def _padded(rows, device):
    """Lists of token ids as one tensor, shorter ones filled up with 0."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)


def scan(pair, problems, answers, *, seed=0, sampling=Sampling()):
    """What the draft signals at each position of given answers, and what the target rejects there.

    Columns: problem_id, position, token, H_q, H_p (nats), max_q, margin (max_q minus the
    runner-up), delta = TV(p, q), and `rejected`: the strict test on the draft's own proposal there,
    with the job's uniforms.
    """
    frames = []
    for reading in read(pair, problems, answers, seed=seed, sampling=sampling):
        x = sample(reading.q, reading.u[:, DRAFT])[:, None]
        q_x = reading.q.gather(-1, x)[:, 0]
        p_x = reading.p.gather(-1, x)[:, 0]
        accepted = accepts(rules.STRICT.accept(p_x, q_x), reading.u[:, ACCEPT])
        signals = reading.signals()
        best = reading.raw_q.topk(2, -1).values
        columns = {
            "H_q": signals.H_q,
            "H_p": signals.H_p,
            "max_q": signals.max_q,
            "margin": best[:, 0] - best[:, 1],
            "delta": rules.tv(reading.p, reading.q),
            "rejected": ~accepted,
        }
        columns = {name: values.tolist() for name, values in columns.items()}
        frames.append(reading.frame.assign(**columns))
    return pd.concat(frames, ignore_index=True)


def measure_rules(pair, problems, answers, named_rules, *, seed=0, sampling=Sampling()):
    """What each rule would do at each position of given answers, computed: nothing is sampled.

    named_rules: label -> rule. Returns one row per position and rule: rule, problem_id, position,
    accept = 1 - R, tv, kl (nats).
    """
    frames = []
    for reading in read(pair, problems, answers, seed=seed, sampling=sampling):
        signals = reading.signals()
        for label, rule in named_rules.items():
            o, rejected = rules.output_distribution(rule, reading.p, reading.q, signals)
            columns = {
                "accept": 1 - rejected,
                "tv": rules.tv(o, reading.p),
                "kl": rules.kl(o, reading.p).clamp(min=0),
            }
            columns = {name: values.tolist() for name, values in columns.items()}
            frames.append(reading.frame.drop(columns="token").assign(rule=label, **columns))
    return pd.concat(frames, ignore_index=True)


@torch.inference_mode()
def entropies(pair, problem, tokens):
    """Entropy (nats) of the draft and of every expert along one answer: columns H_draft, H_NAME."""
    prompt = list(pair.encode(problem.messages))
    fed = torch.tensor([prompt + tokens], device=pair.device)
    columns = {}
    for name, lm in {"draft": pair.draft, **pair.experts}.items():
        lm.start(1, fed.shape[1])
        scores = lm.logits(lm.forward(fed, [0])[0, len(prompt) - 1 : -1])
        columns[f"H_{name}"] = rules.entropy(scores.softmax(-1)).tolist()
    return columns
