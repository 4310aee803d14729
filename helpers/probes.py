"""Looking at single positions: both models read given answers, and answers are continued from a fork.

Teacher-forced, so that an error at one position is not mixed up with the drift that it causes later.
"""

import hashlib
import os

import pandas as pd
import torch

from helpers import common, rules, tasks
from helpers.common import track
from helpers.decoding import decode
from helpers.decoding.sampling import (
    ACCEPT,
    DRAFT,
    GATE,
    REPLACE,
    accepts,
    sample,
    uniforms,
)
from helpers.experiments import code_version, key
from helpers.methods import Sampling, Speculative

LARGE_VOCABULARY = 20_000  # above it, scores of one answer at a time are kept in memory


@torch.inference_mode()
def read(pair, problems, answers, *, seed=0, sampling=Sampling(), batch_size=32):
    """Read given answers (token lists) with both models, some answers at a time.

    Yields (frame, u, raw q, q, raw p, p) with N positions each: a frame of problem_id, position and token, the job's
    uniforms (N, 4), and distributions (N, V). Raw are the unwarped softmaxes, whose entropy gates take; q and p are sampled from.
    """
    size = batch_size if pair.draft.vocab_size < LARGE_VOCABULARY else 1
    room = max(len(pair.encode(p.messages)) for p in problems) + max(len(a) for a in answers)
    for i in track(range(0, len(answers), size), "reading"):
        part = list(zip(problems[i : i + size], answers[i : i + size]))
        prompts = [list(pair.encode(problem.messages)) for problem, _ in part]
        lengths, long = [len(p) for p in prompts], max(len(a) for _, a in part)
        tokens = torch.tensor(
            [p + [0] * (max(lengths) - len(p)) for p in prompts], device=pair.device
        )
        fed = torch.tensor(
            [p[-1:] + list(a) + [0] * (long - len(a)) for p, (_, a) in zip(prompts, part)],
            device=pair.device,
        )
        scores = []
        for lm in (pair.draft, pair.target):
            lm.prefill(tokens, lengths, room)
            hidden = lm.forward(fed[:, :-1], [n - 1 for n in lengths])
            scores.append(lm.logits(torch.cat([h[: len(a)] for h, (_, a) in zip(hidden, part)])))
        frame = pd.concat(
            [
                pd.DataFrame(
                    {"problem_id": problem.id, "position": range(len(a)), "token": list(a)}
                )
                for problem, a in part
            ]
        )
        u = torch.cat([uniforms([key(seed, problem)], len(a))[0] for problem, a in part]).to(
            pair.device
        )
        q, p = scores
        yield frame, u, q.softmax(-1), sampling.warp(q), p.softmax(-1), sampling.warp(p)


def scan(pair, problems, answers, *, seed=0, sampling=Sampling()):
    """What the draft signals at each position of given answers, and whether the target would reject its proposal.

    Columns: problem_id, position, token, H_q, H_p (nats), max_q, margin (max_q minus the runner-up), delta = TV(p, q),
    and `rejected`: the strict test on the draft's own proposal there, with the job's uniforms.
    """
    frames = []
    for frame, u, raw_q, q, raw_p, p in read(pair, problems, answers, seed=seed, sampling=sampling):
        x = sample(q, u[:, DRAFT])
        q_x, p_x = (d.gather(-1, x[:, None])[:, 0] for d in (q, p))
        best = raw_q.topk(2, -1).values
        frames.append(
            frame.assign(
                H_q=rules.entropy(raw_q).tolist(),
                H_p=rules.entropy(raw_p).tolist(),
                max_q=best[:, 0].tolist(),
                margin=(best[:, 0] - best[:, 1]).tolist(),
                delta=rules.tv(p, q).tolist(),
                rejected=(~accepts(rules.STRICT.accept(p_x, q_x), u[:, ACCEPT])).tolist(),
            )
        )
    return pd.concat(frames, ignore_index=True)


def measure_rules(pair, problems, answers, named_rules, *, seed=0, sampling=Sampling()):
    """What each rule would do at each position of given answers, computed exactly (nothing is sampled).

    named_rules: label -> rule. Returns one row per position and rule: rule, problem_id, position, accept = 1 - R, tv, kl (nats).
    """
    frames = []
    for frame, u, raw_q, q, raw_p, p in read(pair, problems, answers, seed=seed, sampling=sampling):
        signals = rules.Signals(
            rules.entropy(raw_q), rules.entropy(raw_p), raw_q.amax(-1), u[:, GATE]
        )
        for label, rule in named_rules.items():
            o, rejected = rules.output_distribution(rule, p, q, signals)
            frames.append(
                frame.drop(columns="token").assign(
                    rule=label,
                    accept=(1 - rejected).tolist(),
                    tv=rules.tv(o, p).tolist(),
                    kl=rules.kl(o, p).clamp(min=0).tolist(),
                )
            )
    return pd.concat(frames, ignore_index=True)


@torch.inference_mode()
def entropies(pair, problem, tokens):
    """Entropy of the draft and of every expert at each position of one answer, nats: columns H_draft, H_NAME."""
    prompt, found = list(pair.encode(problem.messages)), {}
    fed = torch.tensor([prompt + tokens], device=pair.device)
    for name, lm in {"draft": pair.draft, **pair.experts}.items():
        lm.start(1, fed.shape[1])
        scores = lm.logits(lm.forward(fed, [0])[0, len(prompt) - 1 : -1])
        found[f"H_{name}"] = rules.entropy(scores.softmax(-1)).tolist()
    return found


def forks(pair, problems, rows, rescues, *, sampling=Sampling(), batch_size=64):
    """At each rescue, answer twice: from the rescued token and from the token that strict would have put there.

    rows: generations with `tokens`; rescues: trace rows (problem_id, seed, position, token, H_q). Both branches go on
    strictly with the same uniforms. Returns the rescues with `score_rescued`, `score_strict` (grades of the whole answer).
    """
    by_id, tokens = {p.id: p for p in problems}, rows.set_index(["problem_id", "seed"]).tokens
    starts, jobs = [], []
    for r in rescues.itertuples():
        problem, before = by_id[r.problem_id], list(tokens[r.problem_id, r.seed][: r.position])
        other = _replacement(pair, problem, r.seed, before, sampling)
        for token in (r.token, other):
            starts.append(before + [token])
            jobs.append((problem, r.seed))
    scores = _continue(pair, jobs, starts, sampling, batch_size)
    return rescues.assign(score_rescued=scores[0::2], score_strict=scores[1::2])


@torch.inference_mode()
def _replacement(pair, problem, seed, before, sampling):
    """The token that the strict test would have put after `before`: drawn from norm((p - q)+) with the job's uniform."""
    tokens = torch.tensor([list(pair.encode(problem.messages)) + before], device=pair.device)
    p, q = (sampling.warp(_last_scores(lm, tokens)) for lm in (pair.target, pair.draft))
    u = uniforms([key(seed, problem)], len(before) + 1)[:, -1, REPLACE].to(pair.device)
    return sample(rules.STRICT.residual(p, q), u).item()


def _last_scores(lm, tokens):
    n = tokens.shape[1]
    lm.prefill(
        tokens, [n], n + 256
    )  # room for the next ones, so that what they share with this one is not read again
    return lm.logits(lm.forward(tokens[:, -1:], [n - 1])[:, -1])


def _continue(pair, jobs, starts, sampling, batch_size):
    """Continue each answer strictly from its first tokens, and grade the whole. Cached. Returns scores."""
    facts = repr(
        [code_version(), pair.revision, pair.speed, str(pair.device), sampling, jobs, starts]
    )
    file = common.CACHE / "forks" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.pkl"
    if file.exists():
        return pd.read_pickle(file)
    texts = [None] * len(jobs)
    open_ = sorted(
        (
            i for i, s in enumerate(starts) if s[-1] not in pair.eos
        ),  # like lengths are read together
        key=lambda i: (len(str(jobs[i][0].messages)), len(starts[i])),
    )
    for c in track(range(0, len(open_), batch_size), "forking"):
        part = open_[c : c + batch_size]
        prompts = [list(pair.encode(jobs[i][0].messages)) + starts[i] for i in part]
        limit = max(jobs[i][0].max_new_tokens - len(starts[i]) for i in part)
        keys = [
            key(jobs[i][1] + 10_000, jobs[i][0]) for i in part
        ]  # the same in both branches, new to the job
        for i, a in zip(
            part,
            decode(
                pair, Speculative(), prompts, keys, sampling=sampling, max_new_tokens=max(1, limit)
            ),
        ):
            texts[i] = starts[i] + a.tokens
    texts = [pair.decode([x for x in (t or s) if x not in pair.eos]) for t, s in zip(texts, starts)]
    scores = [g.score for g in tasks.grade_many([(job[0], text) for job, text in zip(jobs, texts)])]
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.to_pickle(scores, file.with_suffix(".tmp"))
    os.replace(file.with_suffix(".tmp"), file)
    return scores
