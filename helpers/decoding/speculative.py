"""Speculative sampling: the draft proposes a block, the target verifies it in one forward.

Sources: Leviathan et al. 2023 (arXiv 2211.17192), Chen et al. 2023 (arXiv 2302.01318). With the
rule STRICT the output has the target's distribution; tests/test_decoding.py enumerates it.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import torch

from helpers import rules, stopping
from helpers.decoding.batch import Round
from helpers.decoding.sampling import ACCEPT, DRAFT, GATE, REPLACE, accepts, sample

AT_ONCE = 2**25  # numbers that a computation over whole distributions takes at once: 128 MB


@dataclass
class Block:
    """A drafted block of g tokens per row; a row may have stopped before the others.

    tokens (rows, g); q, the distributions they were drawn from (rows, g, V); H, entropy in nats,
    and max_q, both of the unwarped distributions (rows, g); drafted, how many count (rows,); raw_q,
    the unwarped distributions where a rule looks at them; arm, what a bandit chose (rows,).
    """

    tokens: torch.Tensor
    q: torch.Tensor
    H: torch.Tensor
    max_q: torch.Tensor
    drafted: torch.Tensor
    raw_q: torch.Tensor | None = None
    arm: torch.Tensor | None = None


def speculative(pair, method, batch, sampling):
    """One block per round: draft, verify, keep a prefix and one token of the target's."""
    batch.read_prompts(pair.draft, pair.target)
    # How many tokens the longest draft of a round had; each length is taken to have been seen once.
    lengths = Counter(range(1, method.policy.gamma + 1))
    while batch.live:
        with batch.clock.phase("draft"):
            ask_after = where_to_ask(lengths, pair.device, method.policy)
            block = draft_block(pair, method, batch, sampling, ask_after)
        width = 0 if block is None else block.tokens.shape[1]
        with batch.clock.phase("verify"):
            last, start = batch.tail(1)
            fed = torch.cat([last, block.tokens], 1) if width else last
            scores = pair.target.logits(pair.target.forward(fed, start))
        if width:
            accepted, next_token, columns = verify(method.rule, block, scores, batch, sampling)
            stopping.end(method.policy, batch, block.arm, accepted, block.drafted)
            parts = [accepted, next_token, block.drafted, *block.tokens.T]
        else:
            next_token = next_alone(scores, batch, sampling)
            parts = [torch.zeros_like(next_token), next_token, torch.zeros_like(next_token)]
            columns = {}
        # One transfer from the device per round: everything that the host needs, stacked.
        accepted, next_token, drafted, *slots = torch.stack(parts).tolist()
        lengths[max(drafted)] += 1
        new = Round([], [] if batch.tracing else None)
        knows_ends = method.policy.adaptive or pair.device.type == "cpu"
        for row, answer in enumerate(batch.live):
            n = accepted[row]
            kept = [slot[row] for slot in slots[:n]]
            ended = bool(kept) and kept[-1] in pair.eos
            new.tokens.append(kept if ended else [*kept, next_token[row]])
            answer.target_calls += 1
            # What the row would have taken alone: a longer row beside it may draft on.
            room = batch.max_new - len(answer.tokens) - 1
            answer.draft_calls += drafted[row] if knows_ends else min(width, room)
            answer.drafted += drafted[row]
            answer.accepted += n
            if batch.tracing:
                position = batch.length[row] - batch.prompt[row]
                turn = answer.rounds
                steps = tested(columns, row, position, turn, min(n + 1, drafted[row]))
                answer.rescued += sum(slot["rescued"] for slot in steps)
                new.trace.append(steps)
                if not ended:
                    source = "bonus" if n == drafted[row] else "residual"
                    new.trace[row].append(added(position, turn, n, next_token[row], source))
            if width:
                # The draft has read the last token and all drafted ones but the last.
                pair.draft.memory.cached[row] = batch.length[row] + min(width - 1, n)
        yield new


def where_to_ask(lengths, device, policy):
    """The numbers of drafted tokens after which a round asks whether any row drafts on.

    A CPU knows at once, so it is asked always. A GPU has to be waited for, so it is asked once, and
    only about a policy that may stop: after that many tokens, a, for which the rounds so far would
    have drafted least, a of them where all rows had stopped by then and gamma elsewhere.
    lengths: Counter of how many tokens the longest draft of each round had.
    """
    slots = range(1, policy.gamma)
    if device.type == "cpu":
        return slots
    if not policy.adaptive or not slots:
        return ()

    def drafts(a):
        return sum(
            times * (a if length <= a else policy.gamma) for length, times in lengths.items()
        )

    return (min(slots, key=drafts),)


def draft_block(pair, method, batch, sampling, ask_after):
    """Draft up to policy.gamma tokens per row. Returns Block, or None where no row has room.

    ask_after: the numbers of tokens after which drafting ends if no row goes on.
    """
    lm = pair.draft
    policy = method.policy
    keeps_raw = rules.looks_at(method.rule, "laws")
    positions = batch.generated()
    # The target adds a token to every block, so a row has room for one draft less than is left.
    room = [batch.max_new - position - 1 for position in positions]
    most = min(policy.gamma, max(room))
    if most < 1:
        return None
    room = torch.tensor(room, device=pair.device)
    eos = torch.tensor(pair.eos, device=pair.device)
    drafted = torch.zeros_like(room)
    going = room > 0
    arm = stopping.begin(policy, batch)
    memory = None
    tokens, qs, entropies, peaks, raws = [], [], [], [], []
    for j in range(most):
        if j == 0:
            scores = batch.next_scores(lm)
        else:
            start = [length + j - 1 for length in batch.length]
            scores = lm.logits(lm.forward(tokens[-1][:, None], start)[:, -1])
        raw = scores.softmax(-1)
        q = raw if sampling.plain else sampling.warp(scores)
        here = [min(position + j, batch.max_new) for position in positions]
        x = sample(q, batch.uniforms_at(here, DRAFT))
        H = rules.entropy(raw)
        drafted += going
        tokens.append(x)
        qs.append(q)
        entropies.append(H)
        peaks.append(raw.amax(-1))
        if keeps_raw:
            raws.append(raw)
        # A token that was drawn stays, whatever its value: dropping it would bias the output.
        going = going & (j + 1 < room) & ~torch.isin(x, eos)
        if policy.adaptive:
            q_x = q.gather(-1, x[:, None])[:, 0]
            on, memory = stopping.decide(policy, H, q_x, j, memory, arm)
            going = going & on
        if j + 1 in ask_after and not going.any():
            break
    stacked = [torch.stack(parts, 1) for parts in (tokens, qs, entropies, peaks)]
    return Block(*stacked, drafted, torch.stack(raws, 1) if raws else None, arm)


def verify(rule, block, scores, batch, sampling):
    """Accept a prefix of the block and choose the token after it.

    scores: the target's at the block's g slots and the one after, (rows, g + 1, V); where the one
    after is lacking, no next_token follows a block that was accepted whole. Returns accepted
    (rows,), next_token (rows,), and the columns of a trace, {} where none is kept.
    """
    p = torch.cat([sampling.warp(scores[here]) for here in _parts(scores)], 1)
    return apply_rule(rule, block, scores, p, batch)


def apply_rule(rule, block, scores, p, batch):
    """`verify` where the target's warped distributions p (rows, g + 1, V) are known."""
    g = block.tokens.shape[1]
    u = _uniforms_of_block(batch, g)
    p_x = p[:, :g].gather(-1, block.tokens[..., None])[..., 0]
    q_x = block.q.gather(-1, block.tokens[..., None])[..., 0]
    inside = torch.arange(g, device=p.device) < block.drafted[:, None]
    signals = see(rule, block, scores[:, :g], p[:, :g], u[:, :g, GATE], batch, inside)

    # Slot j is accepted when u_j < a(x_j): for the strict rule a(x) = min(1, p(x) / q(x)), for the
    # pilot's relaxed one min(1, sqrt(p(x) / q(x))). The accepted prefix ends at the first failure.
    a = rules.accept_prob(rule, p_x, q_x, signals)
    strict = None
    if batch.tracing or hasattr(rule, "look_ahead"):
        strict = accepts(rules.STRICT.accept(p_x, q_x), u[:, :g, ACCEPT])
    ok = accepts(a, u[:, :g, ACCEPT]) & inside
    if hasattr(rule, "look_ahead"):
        ok = rule.look_ahead(ok, strict, inside) & inside
    n = ok.long().cumprod(1).sum(1)

    # After a rejection the replacement is drawn from the residual, norm((p - q)+) for most rules,
    # so that the slot's token has the law q a + R r. After a block that was accepted whole nothing
    # was rejected: the next token, the bonus, is drawn from the target's p.
    row = torch.arange(len(n), device=p.device)
    slot = n.clamp(max=g - 1)
    p_next = p[row, n.clamp(max=p.shape[1] - 1)]
    replaced = rules.residual(rule, p_next, block.q[row, slot], signals.at(row, slot))
    whole = (n == block.drafted)[:, None]
    next_token = sample(torch.where(whole, p_next, replaced), u[row, n, REPLACE])
    if not batch.tracing:
        return n, next_token, {}
    columns = {
        "token": block.tokens,
        "H_q": block.H,
        "H_p": signals.H_p,
        "p_x": p_x,
        "q_x": q_x,
        "u": u[:, :g, ACCEPT],
        "max_q": block.max_q,
        **_distances(rule, p[:, :g], block, signals),
        "accepted": ok,
        "relaxed": rules.is_open(rule, signals),
        "rescued": ok & ~strict,
    }
    return n, next_token, {name: values.tolist() for name, values in columns.items()}


def see(rule, block, scores, p, u_gate, batch, inside):
    """The signals at a block's slots, (rows, g): what the rule looks at, and no more.

    scores and p: the target's at the slots, (rows, g, V); inside: which slots were drafted.
    """
    signals = rules.Signals(block.H, None, block.max_q, u_gate)
    looks_at = partial(rules.looks_at, rule)
    if batch.tracing or looks_at("target") or looks_at("laws"):
        H_p = [rules.entropy(scores[here].softmax(-1)) for here in _parts(scores)]
        signals = replace(signals, H_p=torch.cat(H_p, 1))
    if rules.is_gated(rule):
        tail, _ = batch.tail(1)
        first = torch.tensor(batch.generated(), device=tail.device)[:, None]
        tail = torch.where(first > 0, tail, rules.NO_TOKEN)
        signals = replace(
            signals,
            position=first + torch.arange(inside.shape[1], device=tail.device),
            previous=torch.cat([tail, block.tokens[:, :-1]], 1),
        )
    if looks_at("history"):
        signals = replace(signals, H_recent=remember(block, signals.position, batch, inside))
    if looks_at("laws"):
        best = scores.topk(2, -1).values
        laws = rules.Laws(p, block.q, scores.softmax(-1), block.raw_q, block.tokens, best)
        signals = replace(signals, laws=laws)
    return signals


def remember(block, position, batch, inside):
    """The entropies before each slot, (rows, g, RECENT); the block's own are kept for later rounds.

    A slot is tested only where all before it were accepted, so these are entropies along the text.
    The draft has none where the target adds a bonus token: NaN there, and past the drafted slots.
    """
    rows, g = inside.shape
    room = rules.RECENT + batch.tokens.shape[1]
    known = batch.remember("H", lambda n: torch.full((n, room), torch.nan, device=inside.device))
    # What an earlier round left at the bonus token's place was of another text.
    unknown = torch.full_like(block.H[:, :1], torch.nan)
    H = torch.cat([torch.where(inside, block.H, torch.nan), unknown], 1)
    place = torch.cat([position, position[:, -1:] + 1], 1) + rules.RECENT
    known = known.scatter(1, place, H)
    batch.kept["H"] = known
    window = torch.arange(-rules.RECENT, 0, device=inside.device)
    before = (place[:, :g, None] + window).reshape(rows, -1)
    return known.gather(1, before).reshape(rows, g, rules.RECENT)


def next_alone(scores, batch, sampling):
    """The target's token where there was no room to draft: drawn from p, (rows,)."""
    p = sampling.warp(scores[:, 0])
    return sample(p, batch.uniforms_at(batch.generated(), REPLACE))


def _uniforms_of_block(batch, g):
    """Uniforms at a block's g slots and the one after, (rows, g + 1, purposes)."""
    first = torch.tensor(batch.generated(), device=batch.u.device)[:, None]
    positions = first + torch.arange(g + 1, device=batch.u.device)
    # Slots past the longest answer are never kept; any uniform will do for them.
    positions = positions.clamp(max=batch.max_new)
    return batch.u.gather(1, positions[..., None].expand(-1, -1, batch.u.shape[-1]))


def _parts(laws):
    """Indices (all rows, some slots) that cut laws (rows, g, V) into pieces of bounded size.

    Many rows with long blocks hold gigabytes, and every step of a computation would copy them.
    """
    rows, g, size = laws.shape
    slots = max(1, AT_ONCE // (rows * size))
    return [(slice(None), slice(first, first + slots)) for first in range(0, g, slots)]


def _distances(rule, p, block, signals):
    """How far the rule's output law o strays from p at each slot, and the draft's q from p."""
    found = [
        _distances_at(rule, p[here], block.q[here], block.tokens[here], signals.at(*here))
        for here in _parts(p)
    ]
    return {name: torch.cat([part[name] for part in found], 1) for name in found[0]}


def _distances_at(rule, p, q, tokens, signals):
    """`_distances` of some slots: p and q (rows, slots, V), tokens and signals (rows, slots)."""
    if rules.needs_support_alone(rule):
        p, q, signals, _ = rules.on_support(p, q, signals, tokens)
    o, _ = rules.output_distribution(rule, p, q, signals)
    return {
        "tv": rules.tv(o, p),
        "delta": rules.tv(p, q),
        "kl": rules.kl(o, p),
        "overshoot": rules.overshoot(o, p),
    }


def tested(columns, row, position, turn, count):
    """Trace rows of the slots that were tested in one row of the batch."""
    tested = []
    for j in range(count):
        facts = {name: values[row][j] for name, values in columns.items()}
        facts["path"] = "relaxed" if facts.pop("relaxed") else "strict"
        place = {"position": position + j, "round": turn, "slot": j, "source": "draft"}
        tested.append(place | facts)
    return tested


def added(position, turn, n, token, source):
    """The trace row of the token that the target added after n accepted ones."""
    return {
        "position": position + n,
        "round": turn,
        "slot": n,
        "token": token,
        "source": source,
    }
