"""What a gate or a rule may look at besides p(x) and q(x) of the drafted token."""

from dataclasses import dataclass, field, fields, replace

import torch

from helpers.rules.distances import entropy, jsd, tv

RECENT = 5  # how many entropies before a slot are remembered
NO_TOKEN = -1  # what stands before the first token of an answer
WORDS = {
    "H_p": "the target's entropy (H_p)",
    "max_q": "the draft's largest probability (max_q)",
    "u_gate": "a uniform of its own (u_gate)",
    "position": "the position in the answer (position)",
    "previous": "the token before (previous)",
    "H_recent": "the entropies before the slot (H_recent)",
    "laws": "both models' whole distributions (laws)",
    "best_scores": "the two largest scores of the target (best_scores)",
}


@dataclass(frozen=True)
class Signals:
    """What a gate may look at, one value per tested position: each a tensor of the shape of p_x.

    H_recent alone has a last axis more, of RECENT entropies. What is None is not known there.
    """

    H_q: torch.Tensor  # entropy of the draft, nats, unwarped
    H_p: torch.Tensor | None = None  # entropy of the target, nats, unwarped
    max_q: torch.Tensor | None = None  # the draft's largest probability, unwarped
    u_gate: torch.Tensor | None = None  # a uniform that nothing else uses
    position: torch.Tensor | None = None  # how many tokens of the answer stand before, long
    previous: torch.Tensor | None = None  # the token before, long; NO_TOKEN before the first
    H_recent: torch.Tensor | None = None  # H_q of the positions before, oldest first; NaN: unknown
    laws: "Laws | None" = None  # both models' whole distributions

    def each(self, function):
        """The same signals with `function` applied to every tensor that is there, not to laws."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "laws"}
        changed = {name: None if v is None else function(v) for name, v in values.items()}
        return Signals(**changed, laws=self.laws)

    def at(self, row, slot):
        """The signals at one slot per row: (rows, slots) -> (rows,)."""
        here = self.each(lambda value: value[row, slot])
        return replace(here, laws=None if self.laws is None else self.laws.at(row, slot))

    def beside(self, p, q):
        """The signals with a last axis of 1 more, to stand beside p and q (..., V).

        Where no laws are known, they are p and q, unwarped.
        """
        laws = Laws(p, q, p, q) if self.laws is None else self.laws
        wide = self.each(lambda value: value.unsqueeze(self.H_q.ndim))
        return replace(wide, laws=laws.of_every_token())


def known(signals, name):
    """One of the signals, or a ValueError that says which is missing."""
    value = getattr(signals, name, None)
    if value is None:
        raise ValueError(
            f"this rule or gate looks at {WORDS[name]}, which is not known here; decode "
            "with it, or measure it on a probes.Reading"
        )
    return value


def once(compute):
    """A fact about laws: a value per position, computed once for all that share `known_facts`."""

    def fact(laws):
        if compute.__name__ not in laws.known_facts:
            laws.known_facts[compute.__name__] = compute(laws)
        return laws.fact(laws.known_facts[compute.__name__])

    return property(fact, doc=compute.__doc__)


@dataclass(frozen=True, eq=False)
class Laws:
    """Both models' whole distributions at some positions, and facts about them, lazily.

    p, q: warped, (..., V); raw_p, raw_q: unwarped; token: the drafted one (...); best_scores: the
    target's two largest scores (..., 2). Every fact has the shape of the positions, (...); with
    `every_token` it has a last axis of 1, to stand beside (..., V), and `token` is all V of them.
    words: the tokens that p and q are over, where these are few of the vocabulary (`over`).
    """

    p: torch.Tensor
    q: torch.Tensor
    raw_p: torch.Tensor
    raw_q: torch.Tensor
    token: torch.Tensor | None = None
    best_scores: torch.Tensor | None = None
    every_token: bool = False
    words: torch.Tensor | None = None
    known_facts: dict = field(default_factory=dict)

    def at(self, row, slot):
        """The laws at one slot per row: (rows, slots, V) -> (rows, V)."""
        parts = (self.p, self.q, self.raw_p, self.raw_q, self.token, self.best_scores)
        return Laws(*(None if part is None else part[row, slot] for part in parts))

    def over(self, words, p, q):
        """The same laws with p and q over these tokens (..., W) alone; all others have none."""
        return replace(self, words=words, p=p, q=q)

    def of_every_token(self):
        """The same laws for asking about all tokens of p and q at once."""
        every = self.words
        if every is None:
            every = torch.arange(self.p.shape[-1], device=self.p.device)
        return replace(self, token=every, every_token=True)

    def fact(self, value):
        """A value per position (...) in the shape in which facts are given."""
        return value[..., None] if self.every_token else value

    @once
    def max_p(self):
        """The target's largest probability, unwarped."""
        return self.raw_p.amax(-1)

    @once
    def max_q(self):
        """The draft's largest probability, unwarped."""
        return self.raw_q.amax(-1)

    @once
    def tv(self):
        """TV(p, q), warped: the chance that strict rejects."""
        return tv(self.p, self.q)

    @once
    def jsd(self):
        """Jensen-Shannon divergence of the unwarped distributions, nats."""
        return jsd(self.raw_p, self.raw_q)

    @once
    def margin_q(self):
        """The draft's largest probability minus its second, unwarped."""
        best = self.raw_q.topk(2, -1).values
        return best[..., 0] - best[..., 1]

    @once
    def H_warped(self):
        """Entropy of the draft's warped distribution, nats."""
        return entropy(self.q)

    @once
    def top3_entropy_p(self):
        """-sum p log p over the target's three largest, unwarped and not divided by their sum."""
        return entropy(self.raw_p.topk(min(3, self.raw_p.shape[-1]), -1).values)

    @once
    def runner_up(self):
        """The target's second token."""
        return self.raw_p.topk(2, -1).indices[..., 1]

    @once
    def score_ratio(self):
        """The target's second largest score ÷ its largest; 0 where the largest is not positive."""
        best = known(self, "best_scores")
        return torch.where(best[..., 0] > 0, best[..., 1] / best[..., 0], 0.0)

    def overlap(self, n):
        """Share of the target's n likeliest tokens that are among the draft's n likeliest."""
        name = f"overlap {n}"
        if name not in self.known_facts:
            most = min(n, self.raw_p.shape[-1])
            of_p = self.raw_p.topk(most, -1).indices
            of_q = self.raw_q.topk(most, -1).indices
            shared = (of_p[..., :, None] == of_q[..., None, :]).any(-1)
            self.known_facts[name] = shared.float().mean(-1)
        return self.fact(self.known_facts[name])


def recent(H, position):
    """The RECENT entropies before each of N positions that stand in order, answer after answer.

    H, position (N,) -> (N, RECENT), oldest first; NaN before an answer begins.
    """
    place = torch.arange(len(H), device=H.device)
    columns = []
    for back in range(RECENT, 0, -1):
        before = H[(place - back).clamp(min=0)]
        columns.append(torch.where(position >= back, before, torch.nan))
    return torch.stack(columns, -1)
