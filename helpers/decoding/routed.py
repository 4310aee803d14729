"""Small models only: the draft writes until it is unsure, then the surest expert takes over."""

import torch

from helpers import rules
from helpers.decoding.alone import spoken
from helpers.decoding.batch import Round
from helpers.decoding.sampling import DRAFT, GATE, sample


def routed(pair, method, batch, sampling):
    """One token per round and row, by whoever speaks there."""
    models = {"draft": pair.draft, **pair.experts}
    if len(models) == 1:
        raise ValueError(
            f"the pair {pair.name} has no experts loaded; use load_pair(..., experts=True) on a "
            "pair that has some"
        )
    batch.read_prompts(*models.values())
    router = Router(method, models, len(batch.live))
    while batch.live:
        positions = batch.generated()
        with batch.clock.phase("draft"):
            speakers, scores, entropies = router.next_speakers(batch, positions)
        u = batch.uniforms_at(positions, DRAFT)
        tokens = sample(sampling.warp(scores), u).tolist()
        trace = None
        if batch.tracing:
            trace = [
                [_row(*facts)] for facts in zip(positions, tokens, speakers, entropies, strict=True)
            ]
        yield Round([[token] for token in tokens], trace)


def _row(position, token, speaker, entropies):
    """The trace row of a token: who wrote it, and the entropies of whoever was asked."""
    source = speaker if speaker == "draft" else f"expert:{speaker}"
    asked = {f"H_{name}": H for name, H in entropies.items()}
    return spoken(position, token, source, H_q=entropies[speaker], **asked)


class Router:
    """Who speaks in each answer, and how far each model has read it."""

    def __init__(self, method, models, answers):
        self.method = method
        self.models = models
        self.speaker = ["draft"] * answers
        # answer -> model -> the position at which the model was asked last
        self.last_asked = [dict.fromkeys(models, -1) for _ in range(answers)]

    def next_speakers(self, batch, positions):
        """Names of the speakers, their scores (rows, V), and entropies asked for (dict per row)."""
        self.scores = {}
        self.H = {}
        self.entropies = [{} for _ in batch.live]
        speakers = [self.speaker[answer] for answer in batch.ids]
        for name in self.models:
            self._ask(name, _where(speakers, name), batch, positions)
        # An expert whose own entropy is too high hands back to the draft.
        back = [
            row
            for row, name in enumerate(speakers)
            if name != "draft" and self.entropies[row][name] > self.method.back
        ]
        self._ask("draft", back, batch, positions)
        for row in back:
            speakers[row] = "draft"
        # Where the draft is unsure, everybody is asked and one takes over.
        unsure = [
            row
            for row in _where(speakers, "draft")
            if self.entropies[row]["draft"] > self.method.tau
        ]
        experts = [name for name in self.models if name != "draft"]
        for name in experts:
            self._ask(name, unsure, batch, positions)
        u = batch.uniforms_at(positions, GATE).tolist()
        for row in unsure:
            if self.method.choose == "entropy":
                speakers[row] = min(self.models, key=self.entropies[row].get)
            else:
                speakers[row] = experts[int(u[row] * len(experts))]
        self._note_switches(batch, speakers)
        scores = torch.stack([self.scores[name][row] for row, name in enumerate(speakers)])
        return speakers, scores, self.entropies

    def _ask(self, name, rows, batch, positions):
        """Run a model for these rows, and charge each one call and the tokens it had missed."""
        if not rows:
            return
        if name not in self.scores:
            self.scores[name] = batch.next_scores(self.models[name])
            self.H[name] = rules.entropy(self.scores[name].softmax(-1)).tolist()
        for row in rows:
            if name in self.entropies[row]:
                continue
            answer = batch.live[row]
            last_asked = self.last_asked[batch.ids[row]]
            answer.draft_calls += 1
            answer.caught_up += positions[row] - last_asked[name] - 1
            last_asked[name] = positions[row]
            self.entropies[row][name] = self.H[name][row]

    def _note_switches(self, batch, speakers):
        """Count changes of speaker."""
        for row, name in enumerate(speakers):
            answer = batch.ids[row]
            batch.live[row].switches += name != self.speaker[answer]
            self.speaker[answer] = name


def _where(speakers, name):
    """The rows in which `name` speaks."""
    return [row for row, speaker in enumerate(speakers) if speaker == name]
