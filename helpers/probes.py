"""Looking at single positions: both models read given answers, and answers go on from a fork.

Teacher-forced, so that an error at one position is not mixed up with the drift it causes later.
"""

from typing import NamedTuple

import pandas as pd
import torch

from helpers import rules, store, tasks
from helpers.common import track
from helpers.decoding import decode
from helpers.decoding.sampling import ACCEPT, DRAFT, GATE, REPLACE, accepts, sample, uniforms
from helpers.experiments import identity, key
from helpers.methods import Sampling, Speculative

LARGE_VOCABULARY = 20_000  # above it, scores of one answer at a time are kept in memory
FORK_ROOM = 256  # cells beyond a prefix, so that a longer one that begins with it is not read again
FORK_SEED = 10_000  # added to a job's seed: the same in both branches, new to the job


class Reading(NamedTuple):
    """What both models say at N positions of given answers.

    frame: problem_id, position, token; u: the job's uniforms (N, purposes); raw_q and raw_p: the
    unwarped distributions (N, V), whose entropies gates take; q and p are sampled from.
    """

    frame: pd.DataFrame
    u: torch.Tensor
    raw_q: torch.Tensor
    q: torch.Tensor
    raw_p: torch.Tensor
    p: torch.Tensor

    def signals(self):
        """What a gate may look at, at these positions."""
        H_q = rules.entropy(self.raw_q)
        H_p = rules.entropy(self.raw_p)
        return rules.Signals(H_q, H_p, self.raw_q.amax(-1), self.u[:, GATE])


@torch.inference_mode()
def read(pair, problems, answers, *, seed=0, sampling=Sampling(), batch_size=32):
    """Read given answers (token lists) with both models. Yields a Reading for some at a time."""
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


# ---- forks -------------------------------------------------------------------------------------


def forks(pair, problems, rows, rescues, *, sampling=Sampling(), batch_size=64):
    """At each rescue, answer twice: from the rescued token, and from strict's own token there.

    rows: generations with `tokens`; rescues: trace rows (problem_id, seed, position, token, H_q).
    Both branches go on strictly with the same uniforms. Returns the rescues with `score_rescued`
    and `score_strict`, the grades of the whole answers.
    """
    by_id = {problem.id: problem for problem in problems}
    answers = rows.set_index(["problem_id", "seed"]).tokens
    starts = []
    jobs = []
    for rescue in rescues.itertuples():
        problem = by_id[rescue.problem_id]
        before = list(answers[rescue.problem_id, rescue.seed][: rescue.position])
        strict = _replacement(pair, problem, rescue.seed, before, sampling)
        for token in (rescue.token, strict):
            starts.append([*before, token])
            jobs.append((problem, rescue.seed))
    scores = _continue(pair, jobs, starts, sampling, batch_size)
    return rescues.assign(score_rescued=scores[0::2], score_strict=scores[1::2])


@torch.inference_mode()
def _replacement(pair, problem, seed, before, sampling):
    """The token that a strict rejection would have put after `before`, with the job's uniform."""
    tokens = torch.tensor([list(pair.encode(problem.messages)) + before], device=pair.device)
    p = sampling.warp(_last_scores(pair.target, tokens))
    q = sampling.warp(_last_scores(pair.draft, tokens))
    u = uniforms([key(seed, problem)], len(before) + 1)[:, -1, REPLACE].to(pair.device)
    return sample(rules.STRICT.residual(p, q), u).item()


def _last_scores(lm, tokens):
    """Scores after the last of some tokens, (1, V)."""
    n = tokens.shape[1]
    lm.prefill(tokens, [n], n + FORK_ROOM)
    return lm.logits(lm.forward(tokens[:, -1:], [n - 1])[:, -1])


def _continue(pair, jobs, starts, sampling, batch_size):
    """Scores of answers that are continued strictly from their first tokens. Cached."""
    code = store.code_version()
    file = store.cached("forks", code, *identity(pair), sampling, jobs, starts)
    scores = store.load(file)
    if scores is not None:
        return scores
    answers = list(starts)
    # Answers of like length are read together; one that has ended already stays as it is.
    unfinished = [i for i, start in enumerate(starts) if start[-1] not in pair.eos]
    unfinished.sort(key=lambda i: (len(str(jobs[i][0].messages)), len(starts[i])))
    for first in track(range(0, len(unfinished), batch_size), "forking"):
        some = unfinished[first : first + batch_size]
        limit = max(jobs[i][0].max_new_tokens - len(starts[i]) for i in some)
        rest = decode(
            pair,
            Speculative(),
            [list(pair.encode(jobs[i][0].messages)) + starts[i] for i in some],
            [key(jobs[i][1] + FORK_SEED, jobs[i][0]) for i in some],
            sampling=sampling,
            max_new_tokens=max(1, limit),
        )
        for i, answer in zip(some, rest):
            answers[i] = starts[i] + answer.tokens
    graded = []
    for (problem, _), tokens in zip(jobs, answers):
        text = pair.decode([token for token in tokens if token not in pair.eos])
        graded.append((problem, text))
    scores = [grade.score for grade in tasks.grade_many(graded)]
    store.keep(file, scores)
    return scores
