"""One model alone, and the draft with a target that writes single tokens; nothing is verified."""

import torch

from helpers import rules
from helpers.decoding.batch import Round
from helpers.decoding.sampling import DRAFT, GATE, REPLACE, sample


def autoregressive(pair, method, batch, sampling):
    """One token of one model per round and row."""
    lm = model_named(pair, method.model)
    is_target = method.model == "target"
    batch.read_prompts(lm)
    while batch.live:
        positions = batch.generated()
        with batch.clock.phase("verify" if is_target else "draft"):
            scores = batch.next_scores(lm)
        u = batch.uniforms_at(positions, DRAFT)
        tokens = sample(sampling.warp(scores), u).tolist()
        for answer in batch.live:
            if is_target:
                answer.target_calls += 1
            else:
                answer.draft_calls += 1
        trace = None
        if batch.tracing:
            entropies = rules.entropy(scores.softmax(-1)).tolist()
            column = "H_p" if is_target else "H_q"
            trace = [
                [spoken(position, token, method.model, **{column: H})]
                for position, token, H in zip(positions, tokens, entropies)
            ]
        yield Round([[token] for token in tokens], trace)


def selective(pair, method, batch, sampling):
    """The draft writes; where the method's gate opens, the target writes that token."""
    batch.read_prompts(pair.draft, pair.target)
    while batch.live:
        positions = batch.generated()
        with batch.clock.phase("draft"):
            scores = batch.next_scores(pair.draft)
        H = rules.entropy(scores.softmax(-1))
        at = torch.tensor(positions, device=H.device)
        ask = method.ask(H, batch.uniforms_at(positions, GATE), at)
        tokens = sample(sampling.warp(scores), batch.uniforms_at(positions, DRAFT))
        asked = ask.tolist()
        if any(asked):
            with batch.clock.phase("verify"):
                target_scores = batch.next_scores(pair.target)
            u = batch.uniforms_at(positions, REPLACE)
            tokens = torch.where(ask, sample(sampling.warp(target_scores), u), tokens)
        tokens = tokens.tolist()
        for answer, by_target in zip(batch.live, asked):
            answer.draft_calls += 1
            answer.target_calls += by_target
        trace = None
        if batch.tracing:
            speakers = ["target" if by_target else "draft" for by_target in asked]
            trace = [
                [spoken(position, token, speaker, H_q=h)]
                for position, token, speaker, h in zip(positions, tokens, speakers, H.tolist())
            ]
        yield Round([[token] for token in tokens], trace)


def spoken(position, token, source, **entropies):
    """The trace row of a token that nobody tested: its round is its position."""
    row = {"position": position, "round": position, "slot": 0, "token": token, "source": source}
    return row | entropies


def model_named(pair, name):
    """The pair's draft, its target, or one of its experts."""
    models = {"draft": pair.draft, "target": pair.target} | pair.experts
    if name not in models:
        raise ValueError(f"model was {name!r}; this pair has {', '.join(models)}")
    return models[name]
