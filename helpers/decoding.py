"""The decoders: autoregressive, entropy-selective, speculative; one prompt or many at once.

A method is a frozen dataclass; `decode(pair, method, prompts, keys, ...)` runs it. Rows of a batch advance
independently, each with its own length. Every uniform is a pure function of (key, absolute position, purpose),
so two methods run on the same key are coupled: they agree until their first different decision.
"""
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from helpers import rules

DRAFT, ACCEPT, REPLACE, GATE = range(4)     # the purposes of a position's uniforms


# ---- sampling --------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sampling:
    """Temperature, top-k and top-p: the warp from scores to the distribution that is sampled from."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature >= 0:
            raise ValueError(f"temperature was {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ValueError(f"top_p was {self.top_p} and top_k {self.top_k}; they need 0 < top_p <= 1 and top_k >= 0")

    @property
    def plain(self):
        return self.temperature == 1 and not self.top_k and self.top_p == 1

    def warp(self, logits):
        """Scores (..., V) -> probabilities (..., V); one-hot at temperature 0."""
        if self.temperature == 0:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        logits = logits / self.temperature
        if self.top_k:
            smallest = logits.topk(min(self.top_k, logits.shape[-1])).values[..., -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p < 1:
            ranked, order = logits.sort(-1, descending=True)
            before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
            drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= self.top_p)
            logits = logits.masked_fill(drop, -torch.inf)
        return logits.softmax(-1)


def sample(probs, u):
    """Inverse-CDF draw: the first token whose cumulative probability exceeds u. (..., V), (...) -> (...) long."""
    cdf = probs.cumsum(-1)
    total = cdf[..., -1:]
    point = torch.minimum(u[..., None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, point, right=True).squeeze(-1)


def accepts(a, u):
    """Whether a token with acceptance probability a is accepted by the uniform u: bool, the common shape."""
    return u < a


def uniforms(keys, length):
    """Uniforms in [0, 1) of shape (rows, length, 4); row b depends on keys[b] = (seed, problem number) alone."""
    table = [np.random.Generator(np.random.Philox(key=[int(k) % 2**64 for k in key])).random((length, 4), np.float32)
             for key in keys]
    return torch.from_numpy(np.stack(table))


# ---- draft-length policies: decided from the prefix and the token just kept, so lossless --

@dataclass(frozen=True)
class Fixed:
    """Draft `gamma` tokens."""

    gamma: int = 4
    adaptive = False

    def __post_init__(self):
        if not (isinstance(self.gamma, int) and self.gamma >= 1):
            raise ValueError(f"gamma was {self.gamma!r}; it must be a whole number of drafted tokens, 1 or more")

    def go_on(self, H, q_x, j):
        return torch.ones_like(H, dtype=torch.bool)


@dataclass(frozen=True)
class EntropyStop(Fixed):
    """Keep the token just drawn, then stop drafting where H(q) > `stop` nats; at most `gamma` tokens."""

    stop: float = 1.0
    adaptive = True

    def go_on(self, H, q_x, j):
        return H <= self.stop


@dataclass(frozen=True)
class Confidence(Fixed):
    """Stop after a token with q(x) < `threshold`: transformers' assistant_confidence_threshold (0.4)."""

    threshold: float = 0.4
    adaptive = True

    def go_on(self, H, q_x, j):
        return q_x >= self.threshold


@dataclass(frozen=True)
class SqrtEntropyStop(Fixed):
    """Stop where 1 - sqrt(c H) < `threshold`: AdaEDL's bound (arXiv 2410.18351, c = 0.2) and SVIP's (2411.18462)."""

    c: float = 0.2
    threshold: float = 0.5
    adaptive = True

    def go_on(self, H, q_x, j):
        return 1 - (self.c * H).clamp(min=0).sqrt() >= self.threshold


# ---- methods ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Autoregressive:
    """One model alone, one token at a time: AS_small (draft) or AS_large (target)."""

    model: str = "target"
    label: str = ""

    def __post_init__(self):
        object.__setattr__(self, "label", self.label or {"draft": "AS_small", "target": "AS_large"}.get(self.model, self.model))


@dataclass(frozen=True)
class Selective:
    """The draft speaks; the target makes the token where the gate opens. No verification.

    gate "entropy": H(q) > tau. Controls: "random" (u < tau) and "periodic" (share tau of positions, evenly).
    """

    tau: float = 1.0
    gate: str = "entropy"
    label: str = "Selective"

    def __post_init__(self):
        if self.tau != self.tau:
            raise ValueError("tau was NaN; it must be a number")
        if self.gate not in ("entropy", "random", "periodic"):
            raise ValueError(f"gate was {self.gate!r}; choose entropy, random or periodic")

    def ask(self, H, u, position):
        """Whether the target makes this token: bool (rows,)."""
        if self.gate == "entropy":
            return H > self.tau
        if self.gate == "random":
            return u < self.tau
        return torch.floor((position + 1) * self.tau) > torch.floor(position * self.tau)


@dataclass(frozen=True)
class Speculative:
    """Draft a block, verify it at once, accept by `rule`. SP is rule = STRICT; SP_entropy is rules.SP_entropy(tau)."""

    rule: rules.Rule = rules.STRICT
    policy: Fixed = field(default_factory=Fixed)
    label: str = "SP"


# ---- results ---------------------------------------------------------------------------------------

@dataclass
class Generation:
    """One answer: tokens (with eos, if it came), text, how it finished, counts, seconds by phase, trace rows."""

    tokens: list
    text: str = ""
    finish: str = "length"
    target_calls: int = 0
    draft_calls: int = 0
    drafted: int = 0
    accepted: int = 0
    rescued: int = 0
    rounds: int = 0
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
        self.length = list(self.prompt)                 # tokens in the sequence, a plain int per row
        room = max(self.prompt) + max_new_tokens + slack    # a row near its end may sit beside rows that draft on
        self.tokens = torch.zeros(len(prompts), room, dtype=torch.long, device=pair.device)
        for row, p in enumerate(prompts):
            self.tokens[row, :len(p)] = torch.tensor(p)
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
        return self.tokens.gather(1, torch.tensor(start, device=device)[:, None] + torch.arange(width, device=device)), start

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
        self.tokens[row, self.prompt[row]:self.prompt[row] + n] = torch.tensor(answer.tokens, device=self.tokens.device)
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

    def now(self):
        if self.cuda and self.phases:
            torch.cuda.synchronize()
        return time.perf_counter()

    def add(self, phase, since):
        self.spent[phase] += self.now() - since


# ---- decoding --------------------------------------------------------------------------------------

@torch.inference_mode()
def decode(pair, method, prompts, keys, *, sampling=Sampling(), max_new_tokens=128, stop=(), trace=False,
           on_round=None):
    """Run `method` on prompts (lists of token ids), one row each. Returns a list of Generation.

    keys: one (seed, problem number) per row. on_round(generations) is called after every round; returning
    True ends the run where it is. Seconds are filled for a single row only: a batch has no time per answer.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens was {max_new_tokens}; it must be 1 or more")
    longest = max(len(p) for p in prompts)
    if longest + max_new_tokens > pair.context:
        raise ValueError(f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the context of {pair.context}; "
                         "shorten the prompt or lower max_new_tokens")
    slack = method.policy.gamma + 1 if isinstance(method, Speculative) else 1
    rows = Rows(pair, prompts, keys, max_new_tokens, tuple(stop), trace, slack)
    clock = Clock(pair.device, len(prompts) == 1)
    run = {Autoregressive: _autoregressive, Selective: _selective, Speculative: _speculative}[type(method)]
    run(pair, method, rows, sampling, clock, on_round)
    total = clock.now() - clock.begin
    for answer in rows.all:
        kept = answer.tokens[:-1] if answer.finish == "eos" else answer.tokens
        answer.text = pair.decode(kept)
        for s in stop if answer.finish == "stop" else ():
            answer.text = answer.text.split(s)[0]
        if len(prompts) == 1:
            answer.seconds, answer.draft_s, answer.verify_s = total, clock.spent["draft"], clock.spent["verify"]
            answer.host_s = total - answer.draft_s - answer.verify_s
        if trace:
            answer.trace = pd.DataFrame(answer.trace)
    return rows.all


def _prefill(lm, rows):
    """Cache every prompt but its last token."""
    width = max(rows.prompt) - 1
    lm.start(len(rows.live), rows.tokens.shape[1])
    if width:
        lm.forward(rows.tokens[:, :width], [0] * len(rows.live))
    lm.memory.cached = [p - 1 for p in rows.prompt]


def _next_scores(lm, rows):
    """Scores of every row's next token (rows, V), feeding whatever the cache lacks."""
    tokens, start = rows.tail(max(n - c for n, c in zip(rows.length, lm.memory.cached)))
    hidden = lm.forward(tokens, start)
    lm.memory.cached = list(rows.length)
    return lm.logits(hidden[torch.arange(len(start)), [n - 1 - s for n, s in zip(rows.length, start)]])


def _autoregressive(pair, method, rows, sampling, clock, on_round):
    if method.model not in ("draft", "target", *pair.experts):
        raise ValueError(f"model was {method.model!r}; this pair has draft, target{''.join(', ' + e for e in pair.experts)}")
    lm = pair.experts.get(method.model) or getattr(pair, method.model)
    phase, calls = ("verify", "target_calls") if method.model == "target" else ("draft", "draft_calls")
    since = clock.now()
    _prefill(lm, rows)
    clock.add(phase, since)
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
                answer.trace.append({"position": made[row], "round": made[row], "slot": 0, "token": token,
                                     "source": method.model, key: entropies[row]})
            if rows.append(row, [token]):
                done.append(row)
        if on_round and on_round(rows.all):
            return
        rows.drop(done, lm)


def _selective(pair, method, rows, sampling, clock, on_round):
    since = clock.now()
    _prefill(pair.draft, rows)
    _prefill(pair.target, rows)
    clock.add("verify", since)
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
            tokens = torch.where(ask, sample(sampling.warp(target_scores), rows.at(made, REPLACE)), tokens)
        entropies, done = H.tolist(), []
        for row, token in enumerate(tokens.tolist()):
            answer = rows.live[row]
            answer.draft_calls += 1
            answer.rounds += 1
            answer.target_calls += asked[row]
            if answer.trace is not None:
                answer.trace.append({"position": made[row], "round": made[row], "slot": 0, "token": token,
                                     "source": "target" if asked[row] else "draft", "H_q": entropies[row]})
            if rows.append(row, [token]):
                done.append(row)
        if on_round and on_round(rows.all):
            return
        rows.drop(done, pair.draft, pair.target)


@dataclass
class Block:
    """A drafted block: tokens, probabilities q (rows, g, V), H, max_q (rows, g), and how many count per row (drafted)."""

    tokens: torch.Tensor
    q: torch.Tensor
    H: torch.Tensor
    max_q: torch.Tensor
    drafted: torch.Tensor


def _speculative(pair, method, rows, sampling, clock, on_round):
    since = clock.now()
    _prefill(pair.draft, rows)
    clock.add("draft", since)
    since = clock.now()
    _prefill(pair.target, rows)
    clock.add("verify", since)
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
        host = torch.stack([accepted, next_token] if block is None else
                           [accepted, next_token, block.drafted, *block.tokens.T]).tolist()   # the round's one transfer
        width, done = fed.shape[1] - 1, []
        for row, answer in enumerate(rows.live):
            n, token = host[0][row], host[1][row]
            drafted = host[2][row] if width else 0
            kept = [host[3 + j][row] for j in range(n)]
            ended = bool(kept) and kept[-1] in pair.eos
            answer.target_calls += 1
            answer.draft_calls += width if not method.policy.adaptive else drafted
            answer.drafted, answer.accepted, answer.rounds = answer.drafted + drafted, answer.accepted + n, answer.rounds + 1
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
    check = pair.device.type == "cpu"       # on a GPU, looking whether anyone still drafts would cost a synchronisation
    for j in range(most):
        scores = _next_scores(lm, rows) if j == 0 else lm.logits(
            lm.forward(tokens[-1][:, None], [n + j - 1 for n in rows.length])[:, -1])
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
    return Block(torch.stack(tokens, 1), torch.stack(qs, 1), torch.stack(Hs, 1), torch.stack(peaks, 1), drafted)


def _verify(rule, block, scores, rows, sampling, made):
    """Accept a prefix of the block and choose the token after it.

    scores: the target's (rows, g+1, V). Returns accepted (rows,), next_token (rows,), and the per-slot facts
    that a trace needs (None when nobody records).
    """
    p = sampling.warp(scores)
    B, device = p.shape[0], p.device
    if block is None:
        none = torch.zeros(B, dtype=torch.long, device=device)
        return none, sample(p[:, 0], rows.at(made, REPLACE)), None if rows.live[0].trace is None else {}
    g = block.tokens.shape[1]
    offsets = (torch.tensor(made, device=device)[:, None] + torch.arange(g + 1, device=device)).clamp(max=rows.max_new)
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
    here = rules.Signals(*(None if s is None else s[row, slot] for s in
                           (signals.H_q, signals.H_p, signals.max_q, signals.u_gate)))
    p_next = p[row, n]
    replaced = rules.residual(rule, p_next, block.q[row, slot], here)
    next_token = sample(torch.where((n == block.drafted)[:, None], p_next, replaced), u[row, n, REPLACE])
    if not tracing:
        return n, next_token, None
    strict = accepts(rules.STRICT.accept(p_x, q_x), u[:, :g, ACCEPT])
    o, _ = rules.output_distribution(rule, p[:, :g], block.q, signals)
    facts = {"token": block.tokens, "H_q": block.H, "H_p": H_p, "p_x": p_x, "q_x": q_x, "u": u[:, :g, ACCEPT],
             "max_q": block.max_q, "open": rules.is_open(rule, signals), "ok": ok, "strict": strict,
             "tv": rules.tv(o, p[:, :g]), "delta": rules.tv(p[:, :g], block.q)}
    return n, next_token, {key: value.tolist() for key, value in facts.items()}


def _note(answer, facts, row, made, turn, n, drafted, token, ended):
    """Append this round's trace rows: every tested slot, then the token that the target added."""
    for j in range(min(n + 1, drafted)):
        f = {key: value[row][j] for key, value in facts.items()}
        rescued = f["ok"] and not f["strict"]
        answer.rescued += rescued
        answer.trace.append({
            "position": made + j, "round": turn, "slot": j, "token": f["token"], "source": "draft", "H_q": f["H_q"],
            "H_p": f["H_p"], "p_x": f["p_x"], "q_x": f["q_x"], "max_q": f["max_q"], "u": f["u"],
            "path": "relaxed" if f["open"] else "strict", "accepted": f["ok"], "rescued": rescued, "tv": f["tv"],
            "delta": f["delta"]})
    if not ended:
        answer.trace.append({"position": made + n, "round": turn, "slot": n, "token": token,
                             "source": "bonus" if n == drafted else "residual"})
