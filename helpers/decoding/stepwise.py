"""GlimpRouter: the draft's entropy at a step's first token says which model writes the step."""

import torch

from helpers import rules
from helpers.decoding.alone import spoken
from helpers.decoding.batch import Round
from helpers.decoding.sampling import DRAFT, REPLACE, sample

WINDOW = 8  # last tokens whose text is looked at: one character may take several


def stepwise(pair, method, batch, sampling):
    """One token per round and row, by the model that has the step."""
    batch.read_prompts(pair.draft, pair.target)
    by_target = dict.fromkeys(range(len(batch.answers)), False)
    while batch.live:
        positions = batch.generated()
        begins = [_begins(pair, method, answer) for answer in batch.live]
        asks = [new or not by_target[answer] for new, answer in zip(begins, batch.ids)]
        entropies = [float("nan")] * len(batch.live)
        tokens = torch.zeros(len(batch.live), dtype=torch.long, device=batch.tokens.device)
        if any(asks):
            with batch.clock.phase("draft"):
                scores = batch.next_scores(pair.draft)
                tokens = sample(sampling.warp(scores), batch.uniforms_at(positions, DRAFT))
                entropies = rules.entropy(scores.softmax(-1)).tolist()
        for row, answer in enumerate(batch.ids):
            if begins[row]:
                by_target[answer] = entropies[row] >= method.tau
        targets = [by_target[answer] for answer in batch.ids]
        if any(targets):
            with batch.clock.phase("verify"):
                scores = batch.next_scores(pair.target)
            u = batch.uniforms_at(positions, REPLACE)
            written = sample(sampling.warp(scores), u)
            tokens = torch.where(torch.tensor(targets, device=tokens.device), written, tokens)
        for answer, asked, target in zip(batch.live, asks, targets):
            answer.draft_calls += asked
            answer.target_calls += target
        tokens = tokens.tolist()
        trace = None
        if batch.tracing:
            entropies = [H if asked else float("nan") for H, asked in zip(entropies, asks)]
            facts = zip(positions, tokens, targets, entropies)
            trace = [
                [spoken(position, token, "target" if target else "draft", H_q=H)]
                for position, token, target, H in facts
            ]
        yield Round([[token] for token in tokens], trace)


def _begins(pair, method, answer):
    """Whether the next token of an answer is the first of a step."""
    if not answer.tokens:
        return True
    return pair.decode(answer.tokens[-WINDOW:]).rstrip(" ").endswith(method.ends)
