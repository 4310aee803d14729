"""The decoders: autoregressive, entropy-selective, speculative, routed; one prompt or many at once.

`decode(pair, method, prompts, keys, ...)` runs a method of helpers/methods.py. Rows of a batch advance
independently, each with its own length. Every uniform is a pure function of (key, position, purpose), so two
methods run on the same key are coupled: they agree until their first different decision.
"""

from dataclasses import dataclass

import pandas as pd
import torch

from helpers import rules
from helpers.decoding.batch import Clock, Rows
from helpers.decoding.sampling import ACCEPT, DRAFT, GATE, REPLACE, accepts, sample
from helpers.methods import Autoregressive, Routed, Sampling, Selective, Speculative


@torch.inference_mode()
def decode(
    pair,
    method,
    prompts,
    keys,
    *,
    sampling=Sampling(),
    max_new_tokens=128,
    stop=(),
    trace=False,
    on_round=None,
):
    """Run `method` on prompts (lists of token ids), one row each. Returns a list of Generation.

    keys: one (seed, problem number) per row. on_round(generations) is called after every round; returning
    True ends the run where it is. Seconds are filled for a single row only: a batch has no time per answer.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens was {max_new_tokens}; it must be 1 or more")
    longest = max(len(p) for p in prompts)
    if longest + max_new_tokens > pair.context:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the context of {pair.context}; "
            "shorten the prompt or lower max_new_tokens"
        )
    slack = method.policy.gamma + 1 if isinstance(method, Speculative) else 1
    rows = Rows(pair, prompts, keys, max_new_tokens, tuple(stop), trace, slack)
    clock = Clock(pair.device, len(prompts) == 1)
    run = {
        Autoregressive: _autoregressive,
        Selective: _selective,
        Speculative: _speculative,
        Routed: _routed,
    }[type(method)]
    run(pair, method, rows, sampling, clock, on_round)
    total = clock.now() - clock.begin
    for answer in rows.all:
        kept = answer.tokens[:-1] if answer.finish == "eos" else answer.tokens
        answer.text = pair.decode(kept)
        for s in stop if answer.finish == "stop" else ():
            answer.text = answer.text.split(s)[0]
        if len(prompts) == 1:
            answer.seconds, answer.prefill_s = total, clock.prefill
            answer.draft_s, answer.verify_s = clock.spent["draft"], clock.spent["verify"]
            answer.host_s = total - answer.draft_s - answer.verify_s
        if trace:
            answer.trace = pd.DataFrame(answer.trace)
    return rows.all


def _prefill(rows, clock, *models):
    """Cache every prompt but its last token."""
    for lm in models:
        lm.prefill(rows.tokens, rows.prompt, rows.tokens.shape[1])
    clock.prompt_read()


def _next_scores(lm, rows):
    """Scores of every row's next token (rows, V), feeding whatever the cache lacks."""
    tokens, start = rows.tail(max(n - c for n, c in zip(rows.length, lm.memory.cached)))
    hidden = lm.forward(tokens, start)
    lm.memory.cached = list(rows.length)
    return lm.logits(
        hidden[torch.arange(len(start)), [n - 1 - s for n, s in zip(rows.length, start)]]
    )


def _autoregressive(pair, method, rows, sampling, clock, on_round):
    if method.model not in ("draft", "target", *pair.experts):
        raise ValueError(
            f"model was {method.model!r}; this pair has draft, target{''.join(', ' + e for e in pair.experts)}"
        )
    lm = pair.experts.get(method.model) or getattr(pair, method.model)
    phase, calls = (
        ("verify", "target_calls") if method.model == "target" else ("draft", "draft_calls")
    )
    _prefill(rows, clock, lm)
    while rows.live:
        since = clock.now()
        scores = _next_scores(lm, rows)
        clock.add(phase, since)
        made = rows.made()
        tokens = sample(sampling.warp(scores), rows.at(made, DRAFT)).tolist()
        if rows.live[0].trace is not None:
            entropies = rules.entropy(scores.softmax(-1)).tolist()
        done = []
        for row, token in enumerate(tokens):
            answer = rows.live[row]
            setattr(answer, calls, getattr(answer, calls) + 1)
            answer.rounds += 1
            if answer.trace is not None:
                key = "H_p" if method.model == "target" else "H_q"
                answer.trace.append(
                    {
                        "position": made[row],
                        "round": made[row],
                        "slot": 0,
                        "token": token,
                        "source": method.model,
                        key: entropies[row],
                    }
                )
            if rows.append(row, [token]):
                done.append(row)
        if on_round and on_round(rows.all):
            return
        rows.drop(done, lm)


def _selective(pair, method, rows, sampling, clock, on_round):
    _prefill(rows, clock, pair.draft, pair.target)
    while rows.live:
        since, made = clock.now(), rows.made()
        scores = _next_scores(pair.draft, rows)
        clock.add("draft", since)
        H = rules.entropy(scores.softmax(-1))
        ask = method.ask(H, rows.at(made, GATE), torch.tensor(made, device=H.device))
        tokens, asked = sample(sampling.warp(scores), rows.at(made, DRAFT)), ask.tolist()
        if any(asked):
            since = clock.now()
            target_scores = _next_scores(pair.target, rows)
            clock.add("verify", since)
            tokens = torch.where(
                ask, sample(sampling.warp(target_scores), rows.at(made, REPLACE)), tokens
            )
        entropies, done = H.tolist(), []
        for row, token in enumerate(tokens.tolist()):
            answer = rows.live[row]
            answer.draft_calls += 1
            answer.rounds += 1
            answer.target_calls += asked[row]
            if answer.trace is not None:
                answer.trace.append(
                    {
                        "position": made[row],
                        "round": made[row],
                        "slot": 0,
                        "token": token,
                        "source": "target" if asked[row] else "draft",
                        "H_q": entropies[row],
                    }
                )
            if rows.append(row, [token]):
                done.append(row)
        if on_round and on_round(rows.all):
            return
        rows.drop(done, pair.draft, pair.target)


def _routed(pair, method, rows, sampling, clock, on_round):
    models = {"draft": pair.draft, **pair.experts}
    if len(models) == 1:
        raise ValueError(
            f"the pair {pair.name} has no experts loaded; use load_pair(..., experts=True) on a pair that has some"
        )
    _prefill(rows, clock, *models.values())
    for answer in rows.live:
        answer.speaker, answer.heard = "draft", {}
    while rows.live:
        since, made = clock.now(), rows.made()
        speakers, scores, entropies = _speakers(method, models, rows, made)
        clock.add("draft", since)
        tokens, done = sample(sampling.warp(scores), rows.at(made, DRAFT)).tolist(), []
        for row, (token, who) in enumerate(zip(tokens, speakers)):
            answer = rows.live[row]
            answer.rounds += 1
            answer.switches += who != answer.speaker
            answer.speaker = who
            if answer.trace is not None:
                answer.trace.append(
                    {
                        "position": made[row],
                        "round": made[row],
                        "slot": 0,
                        "token": token,
                        "H_q": entropies[row][who],
                        "source": who if who == "draft" else f"expert:{who}",
                        **{f"H_{k}": v for k, v in entropies[row].items()},
                    }
                )
            if rows.append(row, [token]):
                done.append(row)
        if on_round and on_round(rows.all):
            return
        rows.drop(done, *models.values())


def _speakers(method, models, rows, made):
    """Who speaks in each row: names, their scores (rows, V), and the entropies that were looked at (dict per row)."""
    scores, H, entropies = {}, {}, [{} for _ in rows.live]

    def hear(who, wanted):
        """Run a model, and charge the rows that asked for it: one call, and every token it had to catch up on."""
        if wanted and who not in scores:
            scores[who] = _next_scores(models[who], rows)
            H[who] = rules.entropy(scores[who].softmax(-1)).tolist()
        for row in wanted:
            if who not in entropies[row]:
                answer = rows.live[row]
                answer.draft_calls += 1
                answer.caught_up += made[row] - answer.heard.get(who, -1) - 1
                answer.heard[who] = made[row]
                entropies[row][who] = H[who][row]

    speakers = [answer.speaker for answer in rows.live]
    for who in models:
        hear(who, [row for row, s in enumerate(speakers) if s == who])
    back = [
        row for row, s in enumerate(speakers) if s != "draft" and entropies[row][s] > method.back
    ]
    hear("draft", back)
    for row in back:
        speakers[row] = "draft"
    asking = [
        row
        for row, s in enumerate(speakers)
        if s == "draft" and entropies[row]["draft"] > method.tau
    ]
    u, experts = rows.at(made, GATE).tolist(), list(models)[1:]
    for who in experts:
        hear(who, asking)
    for row in asking:
        speakers[row] = (
            min(models, key=entropies[row].get)
            if method.choose == "entropy"
            else experts[int(u[row] * len(experts))]
        )
    return speakers, torch.stack([scores[who][row] for row, who in enumerate(speakers)]), entropies


@dataclass
class Block:
    """A drafted block: tokens, probabilities q (rows, g, V), H, max_q (rows, g), and how many count per row (drafted)."""

    tokens: torch.Tensor
    q: torch.Tensor
    H: torch.Tensor
    max_q: torch.Tensor
    drafted: torch.Tensor


def _speculative(pair, method, rows, sampling, clock, on_round):
    _prefill(rows, clock, pair.draft, pair.target)
    turn = 0
    while rows.live:
        since, made = clock.now(), rows.made()
        block = _draft(pair, method.policy, rows, sampling)
        clock.add("draft", since)
        since = clock.now()
        last, start = rows.tail(1)
        fed = last if block is None else torch.cat([last, block.tokens], 1)
        scores = pair.target.logits(pair.target.forward(fed, start))
        clock.add("verify", since)
        accepted, next_token, facts = _verify(method.rule, block, scores, rows, sampling, made)
        host = torch.stack(
            [accepted, next_token]
            if block is None
            else [accepted, next_token, block.drafted, *block.tokens.T]
        ).tolist()  # the round's one transfer
        width, done = fed.shape[1] - 1, []
        for row, answer in enumerate(rows.live):
            n, token = host[0][row], host[1][row]
            drafted = host[2][row] if width else 0
            kept = [host[3 + j][row] for j in range(n)]
            ended = bool(kept) and kept[-1] in pair.eos
            answer.target_calls += 1
            answer.draft_calls += width if not method.policy.adaptive else drafted
            answer.drafted, answer.accepted, answer.rounds = (
                answer.drafted + drafted,
                answer.accepted + n,
                answer.rounds + 1,
            )
            before = rows.length[row]
            if rows.append(row, kept if ended else kept + [token]):
                done.append(row)
            if width:
                pair.draft.memory.cached[row] = min(before + width - 1, before + n)
            if facts is not None:
                _note(answer, facts, row, made[row], turn, n, drafted, token, ended)
        turn += 1
        if on_round and on_round(rows.all):
            return
        rows.drop(done, pair.draft, pair.target)


def _draft(pair, policy, rows, sampling):
    """Draft up to policy.gamma tokens per row; each row stops at its own end. Returns Block, or None (no room)."""
    lm, made = pair.draft, rows.made()
    room = torch.tensor([rows.max_new - m - 1 for m in made], device=pair.device)
    most = min(policy.gamma, max(rows.max_new - m - 1 for m in made))
    if most < 1:
        return None
    eos = torch.tensor(pair.eos, device=pair.device)
    drafted = torch.zeros_like(room)
    going = room > 0
    tokens, qs, Hs, peaks = [], [], [], []
    check = (
        pair.device.type == "cpu"
    )  # on a GPU, looking whether anyone still drafts would cost a synchronisation
    for j in range(most):
        scores = (
            _next_scores(lm, rows)
            if j == 0
            else lm.logits(lm.forward(tokens[-1][:, None], [n + j - 1 for n in rows.length])[:, -1])
        )
        raw = scores.softmax(-1)
        q = raw if sampling.plain else sampling.warp(scores)
        x = sample(q, rows.at([m + min(j, rows.max_new - m) for m in made], DRAFT))
        drafted += going
        H = rules.entropy(raw)
        tokens.append(x), qs.append(q), Hs.append(H), peaks.append(raw.amax(-1))
        going = going & (j + 1 < room) & ~torch.isin(x, eos)
        if policy.adaptive:
            going &= policy.go_on(H, q.gather(-1, x[:, None])[:, 0], j)
        if check and not going.any():
            break
    return Block(
        torch.stack(tokens, 1),
        torch.stack(qs, 1),
        torch.stack(Hs, 1),
        torch.stack(peaks, 1),
        drafted,
    )


def _verify(rule, block, scores, rows, sampling, made):
    """Accept a prefix of the block and choose the token after it.

    scores: the target's (rows, g+1, V). Returns accepted (rows,), next_token (rows,), and the per-slot facts
    that a trace needs (None when nobody records).
    """
    p = sampling.warp(scores)
    B, device = p.shape[0], p.device
    if block is None:
        none = torch.zeros(B, dtype=torch.long, device=device)
        return (
            none,
            sample(p[:, 0], rows.at(made, REPLACE)),
            None if rows.live[0].trace is None else {},
        )
    g = block.tokens.shape[1]
    offsets = (
        torch.tensor(made, device=device)[:, None] + torch.arange(g + 1, device=device)
    ).clamp(max=rows.max_new)
    u = rows.u.gather(1, offsets[..., None].expand(-1, -1, 4))
    p_x = p[:, :g].gather(-1, block.tokens[..., None])[..., 0]
    q_x = block.q.gather(-1, block.tokens[..., None])[..., 0]
    tracing = rows.live[0].trace is not None
    needs_target = tracing or getattr(rule, "gate", "") == "target_entropy"
    H_p = rules.entropy(scores[:, :g].softmax(-1)) if needs_target else None
    signals = rules.Signals(block.H, H_p, block.max_q, u[:, :g, GATE])
    inside = torch.arange(g, device=device) < block.drafted[:, None]
    ok = accepts(rules.accept_prob(rule, p_x, q_x, signals), u[:, :g, ACCEPT]) & inside
    n = ok.long().cumprod(1).sum(1)
    row, slot = torch.arange(B, device=device), n.clamp(max=g - 1)
    here = rules.Signals(
        *(
            None if s is None else s[row, slot]
            for s in (signals.H_q, signals.H_p, signals.max_q, signals.u_gate)
        )
    )
    p_next = p[row, n]
    replaced = rules.residual(rule, p_next, block.q[row, slot], here)
    next_token = sample(
        torch.where((n == block.drafted)[:, None], p_next, replaced), u[row, n, REPLACE]
    )
    if not tracing:
        return n, next_token, None
    strict = accepts(rules.STRICT.accept(p_x, q_x), u[:, :g, ACCEPT])
    o, _ = rules.output_distribution(rule, p[:, :g], block.q, signals)
    facts = {
        "token": block.tokens,
        "H_q": block.H,
        "H_p": H_p,
        "p_x": p_x,
        "q_x": q_x,
        "u": u[:, :g, ACCEPT],
        "max_q": block.max_q,
        "open": rules.is_open(rule, signals),
        "ok": ok,
        "strict": strict,
        "tv": rules.tv(o, p[:, :g]),
        "delta": rules.tv(p[:, :g], block.q),
        "kl": rules.kl(o, p[:, :g]),
        "overshoot": rules.overshoot(o, p[:, :g]),
    }
    return n, next_token, {key: value.tolist() for key, value in facts.items()}


def _note(answer, facts, row, made, turn, n, drafted, token, ended):
    """Append this round's trace rows: every tested slot, then the token that the target added."""
    for j in range(min(n + 1, drafted)):
        f = {key: value[row][j] for key, value in facts.items()}
        ok, strict, relaxed = f.pop("ok"), f.pop("strict"), f.pop("open")
        answer.rescued += ok and not strict
        answer.trace.append(
            {
                "position": made + j,
                "round": turn,
                "slot": j,
                "source": "draft",
                **f,
                "accepted": ok,
                "path": "relaxed" if relaxed else "strict",
                "rescued": ok and not strict,
            }
        )
    if not ended:
        answer.trace.append(
            {
                "position": made + n,
                "round": turn,
                "slot": n,
                "token": token,
                "source": "bonus" if n == drafted else "residual",
            }
        )
