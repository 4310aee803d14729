"""Small models only: the draft writes until it is unsure, then one of the experts may."""

import torch

from helpers import rules
from helpers.decoding.alone import spoken
from helpers.decoding.batch import Round
from helpers.decoding.sampling import DRAFT, GATE, sample

MEAN = "mean"  # who speaks where a token is drawn from the average of all models


def routed(pair, method, batch, sampling):
    """One token per round and row, by whoever speaks there."""
    models = {"draft": pair.draft, **pair.experts}
    if len(models) == 1:
        raise ValueError(
            f"the pair {pair.name} has no experts loaded; use load_pair(..., experts=True) on a "
            "pair that has some"
        )
    batch.read_prompts(*models.values())
    router = Router(method, models, sampling, len(batch.answers))
    while batch.live:
        positions = batch.generated()
        with batch.clock.phase("draft"):
            speakers, probs = router.next_speakers(batch, positions)
        tokens = sample(probs, batch.uniforms_at(positions, DRAFT)).tolist()
        trace = None
        if batch.tracing:
            facts = zip(positions, tokens, speakers, router.entropies, strict=True)
            trace = [[_row(*each)] for each in facts]
        yield Round([[token] for token in tokens], trace)


def _row(position, token, speaker, entropies):
    """The trace row of a token: who wrote it, and the entropies of whoever was asked."""
    source = speaker if speaker in ("draft", MEAN) else f"expert:{speaker}"
    asked = {f"H_{name}": H for name, H in entropies.items()}
    H_q = entropies["draft" if speaker == MEAN else speaker]
    return spoken(position, token, source, H_q=H_q, **asked)


class Router:
    """Who speaks in each answer, and how far each model has read it."""

    def __init__(self, method, models, sampling, answers):
        self.method = method
        self.models = models
        self.sampling = sampling
        self.speaker = ["draft"] * answers
        # answer -> model -> the position at which the model was asked last
        self.last_asked = [dict.fromkeys(models, -1) for _ in range(answers)]

    def next_speakers(self, batch, positions):
        """Names of the speakers, and what their tokens are drawn from, (rows, V).

        `entropies` then holds those that were asked for, a dict per row.
        """
        self.probs = {}
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
        # Where the draft is unsure, everybody is asked.
        unsure = [
            row
            for row in _where(speakers, "draft")
            if self.entropies[row]["draft"] > self.method.tau
        ]
        for name in self.models:
            self._ask(name, unsure, batch, positions)
        u = batch.uniforms_at(positions, GATE).tolist()
        for row in unsure:
            speakers[row] = self._chosen(self.entropies[row], u[row])
        self._note_switches(batch, speakers)
        if MEAN in speakers:
            self.probs[MEAN] = torch.stack([self.probs[name] for name in self.models]).mean(0)
        probs = torch.stack([self.probs[name][row] for row, name in enumerate(speakers)])
        return speakers, probs

    def _chosen(self, entropies, u):
        """Who speaks where all were asked; u: a uniform for choosing at random."""
        if self.method.choose == "mean":
            return MEAN
        if self.method.choose == "entropy":
            return min(self.models, key=entropies.get)
        keep = self.method.keep
        if keep is None:
            keep = 1 / len(self.models)
        if u < keep:
            return "draft"
        experts = [name for name in self.models if name != "draft"]
        return experts[int((u - keep) / (1 - keep) * len(experts))]

    def _ask(self, name, rows, batch, positions):
        """Run a model for these rows, and charge each one call and the tokens it had missed."""
        if not rows:
            return
        if name not in self.H:
            scores = batch.next_scores(self.models[name])
            self.probs[name] = self.sampling.warp(scores)
            self.H[name] = rules.entropy(scores.softmax(-1)).tolist()
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
        """Count changes of speaker. An average is nobody who could go on: the draft does."""
        for row, name in enumerate(speakers):
            answer = batch.ids[row]
            taken_by = "draft" if name == MEAN else name
            batch.live[row].switches += taken_by != self.speaker[answer]
            self.speaker[answer] = taken_by


def _where(speakers, name):
    """The rows in which `name` speaks."""
    return [row for row, speaker in enumerate(speakers) if speaker == name]
