"""Reading answers of the target once with both models: positions, and drafts that go on."""

from functools import partial

import numpy as np
import pandas as pd
import torch

from helpers import experiments, probes, rules, store, taking_turns
from helpers.common import track
from helpers.decoding.sampling import sample
from helpers.ledger.grid import grid
from helpers.ledger.table import LONGEST, OF_RULE, RATES, Ledger
from helpers.methods import Autoregressive, Sampling

READING = (
    *store.DECODING,
    "ledger/reading.py",
    "ledger/grid.py",
    "ledger/table.py",
)  # the code that a ledger depends on


def written_by_target(
    pair,
    problems,
    seeds=(0,),
    *,
    rules=None,
    only=None,
    sampling=Sampling(),
    continuations=1000,
    max_new_tokens=None,
):
    """Let the target answer every (problem, seed), and read the answers. Returns Ledger. Cached.

    rules: label -> rule, kept beside the usual grid; only: label -> rule, kept in its place, which
    is read several times as fast.
    """
    method = Autoregressive("target")
    rows = experiments.run(
        pair, [method], problems, seeds, sampling=sampling, max_new_tokens=max_new_tokens
    )
    by_id = {problem.id: problem for problem in problems}
    return read(
        pair,
        [by_id[name] for name in rows.problem_id],
        list(rows.tokens),
        rules=rules,
        only=only,
        seed=list(rows.seed),
        sampling=sampling,
        continuations=continuations,
        max_new_tokens=list(rows.max_new_tokens),
    )


def read(
    pair,
    problems,
    answers,
    *,
    rules=None,
    only=None,
    seed=0,
    sampling=Sampling(),
    continuations=1000,
    max_new_tokens=None,
):
    """Read answers that the target wrote (token lists), one per problem given. Returns Ledger.

    rules: label -> rule, kept beside the usual grid; only: label -> rule, kept in its place. seed
    and max_new_tokens: one for all or one per answer; a limit that is not given is the problem's.
    continuations: how many rejected tokens the draft goes on from. Cached.
    """
    named = (grid() if only is None else only) | (rules or {})
    seeds = [seed] * len(answers) if isinstance(seed, int) else list(seed)
    limits = _limits(problems, max_new_tokens)
    code = store.code_version(READING)
    settings = (named, seeds, limits, sampling, continuations)
    identity = experiments.identity(pair)
    file = store.cached("ledger", code, *identity, problems, answers, settings)
    tables = store.load(file)
    if tables is None:
        tables = _read(pair, problems, answers, named, seeds, limits, sampling, continuations)
        store.keep(file, tables)
    return Ledger(*tables, rules=named)


def _limits(problems, max_new_tokens):
    """The most tokens that each answer may have."""
    if max_new_tokens is None:
        return [problem.max_new_tokens for problem in problems]
    if isinstance(max_new_tokens, int):
        return [max_new_tokens] * len(problems)
    return [int(limit) for limit in max_new_tokens]


def _read(pair, problems, answers, named, seeds, limits, sampling, continuations):
    """The three tables of a ledger."""
    answers = [list(answer) for answer in answers]
    facts = _answer_facts(pair, problems, answers, seeds, limits)
    rejected = []
    u = torch.Generator().manual_seed(0)

    def readings():
        for reading in probes.read(pair, problems, answers, sampling=sampling):
            with taking_turns.together():
                rejected.append(_rejected_tokens(reading, u))
            yield reading

    # Three quarters of the time goes to the rules' numbers: some readings' while others are read.
    columns_of = taking_turns.step(partial(_position_columns, pair, named))
    frames = list(experiments.side_by_side(pair, columns_of, readings()))
    positions = pd.concat(frames, ignore_index=True)
    rejected = pd.concat(rejected, ignore_index=True)
    chosen = _chosen(positions.tv.to_numpy(), continuations)
    goes_on = _go_on(pair, problems, answers, positions, rejected, chosen, sampling)
    return facts, positions, goes_on


def _answer_facts(pair, problems, answers, seeds, limits):
    """One row per answer."""
    rows = []
    for problem, answer, seed, limit in zip(problems, answers, seeds, limits):
        if not answer:
            raise ValueError(f"the answer to {problem.id} is empty; a ledger needs tokens")
        if len(answer) > limit:
            raise ValueError(
                f"the answer to {problem.id} has {len(answer)} tokens and its limit is {limit}; "
                "give max_new_tokens as the run had it"
            )
        ended = "limit" if len(answer) == limit else "stop"
        rows.append(
            {
                "problem_id": problem.id,
                "task": problem.task,
                "seed": seed,
                "prompt_length": len(pair.encode(problem.messages)),
                "n_tokens": len(answer),
                "ended": "eos" if answer[-1] in pair.eos else ended,
                "max_new_tokens": limit,
            }
        )
    return pd.DataFrame(rows)


def _position_columns(pair, named, reading):
    """The rows of `positions` of one reading."""
    token = torch.tensor(reading.frame.token.to_list(), device=reading.p.device)
    p_y = reading.p.gather(-1, token[:, None])[:, 0]
    q_y = reading.q.gather(-1, token[:, None])[:, 0]
    signals = reading.signals()
    best = reading.raw_q.topk(2, -1).values
    columns = {
        "p_y": p_y,
        "q_y": q_y,
        "H_q": signals.H_q,
        "H_p": signals.H_p,
        "max_q": signals.max_q,
        "margin": best[:, 0] - best[:, 1],
        "max_p": reading.raw_p.amax(-1),
        "tv": rules.tv(reading.p, reading.q),
    }
    few = over_support(reading, signals, token[:, None])
    whole = reading, signals, token[:, None]
    for label, rule in named.items():
        seen = few if rules.needs_support_alone(rule) else whole
        of_it, o = of_rule(rule, *seen, p_y, q_y)
        of_it |= _mixed_kl(seen[0], o)
        columns |= {f"{label}|{name}": values for name, values in of_it.items()}
    columns = {name: values.float().cpu().numpy() for name, values in columns.items()}
    columns["is_end"] = np.isin(token.cpu().numpy(), pair.eos)
    kept = reading.frame[["position", "token"]].reset_index(drop=True).astype("int32")
    return pd.concat([kept, pd.DataFrame(columns)], axis=1)


def over_support(reading, signals, token):
    """(reading, signals, token (N, 1)) over the tokens that p or q can produce: `on_support`."""
    p, q, signals, here = rules.on_support(reading.p, reading.q, signals, token[:, 0])
    return reading._replace(p=p, q=q), signals, here[:, None]


def of_rule(rule, reading, signals, token, p_y, q_y):
    """The numbers kept of a rule (OF_RULE) along a reading, all of its coins summed out.

    token (N, 1) was written, with probabilities p_y and q_y (N,) of either model. Returns
    ({name: tensor (N,)}, the output law o (N, V)).
    """
    o, rejected = rules.output_distribution(rule, reading.p, reading.q, signals)
    o_y = o.gather(-1, token)[:, 0]
    # A coin that was tossed here would be noise in W and h, and one that o does not know of.
    from_draft = q_y * rules.mean_accept_prob(rule, p_y, q_y, signals)
    # Where rounding makes a token impossible that was written, nothing is known: the weight is 1.
    W = torch.where(p_y > 0, from_draft / p_y.clamp(min=rules.TINY), torch.ones_like(p_y))
    h = torch.where(o_y > 0, from_draft / o_y.clamp(min=rules.TINY), torch.zeros_like(p_y))
    tv = rules.tv(o, reading.p)
    kl = rules.kl(o, reading.p).clamp(min=0)
    return dict(zip(OF_RULE, (rejected, W, h.clamp(max=1), tv, kl))), o


def _mixed_kl(reading, o):
    """KL of p mixed with an output law, at the rates of a random gate."""
    columns = {}
    for rate in RATES:
        mixture = (1 - rate) * reading.p + rate * o
        columns[f"kl@{rate:g}"] = rules.kl(mixture, reading.p).clamp(min=0)
    return columns


# ---- drafts that go on after a rejected token --------------------------------------------------


def _rejected_tokens(reading, generator):
    """A token that strict rejects at every position, drawn from norm((q - p)+), and its q."""
    rejectable = (reading.q - reading.p).clamp(min=0)
    # Where p = q nothing is ever rejected, and this token is never asked for.
    rejectable = torch.where(rejectable.sum(-1, keepdim=True) > 0, rejectable, reading.q)
    u = torch.rand(len(rejectable), generator=generator).to(rejectable.device)
    x = sample(rejectable, u)
    q_x = reading.q.gather(-1, x[:, None])[:, 0]
    return pd.DataFrame({"token": x.tolist(), "q_x": q_x.tolist()})


def _chosen(delta, count):
    """`count` positions with probability ∝ δ, systematically: evenly spaced in the sum of δ."""
    total = delta.sum(dtype=float)
    if not count or not total > 0:
        return np.zeros(0, int)
    points = (np.arange(count) + 0.5) * total / count
    return np.searchsorted(np.cumsum(delta, dtype=float), points).clip(max=len(delta) - 1)


@torch.inference_mode()
def _go_on(pair, problems, answers, positions, rejected, chosen, sampling, batch_size=64):
    """Drafts along the text that a rejected token begins.

    One row per step: continuation, row (of `positions`), step, token, H_q (nats), q_x, is_end.
    Step 0 is the rejected token.
    """
    answer_of = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    generator = torch.Generator().manual_seed(1)
    parts = []
    prompts = [list(pair.encode(problem.messages)) for problem in problems]
    # Those of one answer go on together, for it is read once; answers of like length do.
    length_of = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers)]
    chosen = sorted(chosen, key=lambda row: (length_of[answer_of[row]], answer_of[row], row))
    for first in track(range(0, len(chosen), batch_size), "drafting on"):
        some = _each_answer_first(np.array(chosen[first : first + batch_size]), answer_of)
        owners = answer_of[some].tolist()
        texts = {owner: prompts[owner] + answers[owner] for owner in owners}
        at = [len(prompts[owner]) + positions.position[row] for owner, row in zip(owners, some)]
        tokens = [rejected.token[row] for row in some]
        with taking_turns.together():
            steps = _draft_on(pair, texts, owners, at, tokens, sampling, generator)
        zero = {
            "token": rejected.token[some].to_numpy(),
            "H_q": positions.H_q[some].to_numpy(),
            "q_x": rejected.q_x[some].to_numpy(),
        }
        for step, columns in enumerate([zero, *steps]):
            names = {"continuation": first + np.arange(len(some)), "row": some, "step": step}
            parts.append(pd.DataFrame(names | columns))
    empty = pd.DataFrame(columns=["continuation", "row", "step", "token", "H_q", "q_x"])
    table = pd.concat(parts or [empty], ignore_index=True).sort_values(["continuation", "step"])
    table["is_end"] = table.token.isin(pair.eos)
    whole = dict.fromkeys(("continuation", "row", "step", "token"), "int32")
    return table.astype(whole | {"H_q": "float32", "q_x": "float32"}).reset_index(drop=True)


def _each_answer_first(rows, answer_of):
    """Positions with the first of every answer before all others."""
    _, first = np.unique(answer_of[rows], return_index=True)
    first = np.sort(first)
    return np.concatenate([rows[first], np.delete(rows, first)])


def _draft_on(pair, texts, owners, at, tokens, sampling, generator):
    """LONGEST steps of the draft after tokens that stand in other tokens' places.

    texts: owner -> token ids; owners, each one's first before all others, at, tokens: whose text
    a row goes on from, the place in it, and the token there. Returns a dict of columns per step.
    """
    lm = pair.draft
    steps = max(0, min(LONGEST, lm.context - max(at) - 1))
    # Every text is read once, as far as any row needs it, and its cells are copied to its rows.
    needed = {owner: 1 + max(a for o, a in zip(owners, at) if o == owner) for owner in texts}
    read = torch.zeros(len(texts), max(needed.values()), dtype=torch.long, device=pair.device)
    for row, (owner, text) in enumerate(texts.items()):
        read[row, : needed[owner]] = torch.tensor(text[: needed[owner]])
    lm.prefill(read, list(needed.values()), max(at) + 1 + steps, rows=len(at))
    place_of = {owner: row for row, owner in enumerate(texts)}
    lm.memory.keep([place_of[owner] for owner in owners])
    lm.memory.prompt = lm.memory.prompt[: min(at)]  # what follows is overwritten
    x = torch.tensor(tokens, device=pair.device)
    columns = []
    for step in range(steps):
        scores = lm.logits(lm.forward(x[:, None], [place + step for place in at])[:, -1])
        q = sampling.warp(scores)
        x = sample(q, torch.rand(len(at), generator=generator).to(pair.device))
        q_x = q.gather(-1, x[:, None])[:, 0]
        H = rules.entropy(scores.softmax(-1))
        columns.append({"token": x.cpu().numpy(), "H_q": H.cpu().numpy(), "q_x": q_x.cpu().numpy()})
    return columns
