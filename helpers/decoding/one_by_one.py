"""Speculative sampling of many rows at once, without the tokens that a block throws away.

A lone row drafts a block ahead because a forward of several tokens costs the target hardly more
than one. With many rows on a CPU every token costs its multiplications, and what stands after a
rejection is multiplied for nothing. Whether a token is accepted depends on its prefix and on its
position's uniforms alone, so here each row advances by one token a step, through the same blocks:
the same tokens, calls and traces as `speculative`, to the bit where layers are packed.

Two counts differ a little. What a block would have drafted after a rejection counts whole, though
the draft might have ended it at an end token; and what it accepted after a stop text is not seen.
"""

from dataclasses import dataclass, replace

import torch

from helpers.decoding.batch import Round
from helpers.decoding.speculative import added, draft_block, next_alone, tested, verify
from helpers.methods import Fixed

FEWEST_ROWS = 8  # with fewer, reading the weights costs more than the multiplications


@dataclass
class Place:
    """Where a row stands in its block: the block's number, its drafted tokens, the next slot."""

    turn: int
    size: int
    slot: int = 0


def is_cheaper(pair, method, rows):
    """Whether to decode a speculative method like this: many rows, a large pair, a CPU.

    Only for blocks of a fixed length, and rules that look at nothing past the slot.
    """
    large_on_cpu = pair.device.type == "cpu" and not pair.small
    looks_past = hasattr(method.rule, "look_ahead")
    return rows >= FEWEST_ROWS and large_on_cpu and not method.policy.adaptive and not looks_past


def one_by_one(pair, method, batch, sampling):
    """One token per step and row: one drafted and tested, or the target's after a whole block."""
    batch.read_prompts(pair.draft, pair.target)
    single = replace(method, policy=Fixed(1))
    places = {}  # of live rows, by their answers' ids
    while batch.live:
        _begin_blocks(places, method.policy.gamma, batch)
        here = [places[answer_id] for answer_id in batch.ids]
        asks = [place.slot < place.size for place in here]
        with batch.clock.phase("draft"):
            block = draft_block(pair, single, batch, sampling, ask_after=())
        with batch.clock.phase("verify"):
            last, start = batch.tail(1)
            scores = pair.target.logits(pair.target.forward(last, start))
        if block is None:
            next_token = next_alone(scores, batch, sampling)
            parts = [torch.zeros_like(next_token), next_token, next_token]
            columns = {}
        else:
            # A row whose block is whole drafts beside the others, and its draft is not looked at.
            block.drafted = torch.tensor(asks, device=pair.device).long()
            accepted, next_token, columns = verify(method.rule, block, scores, batch, sampling)
            parts = [accepted, next_token, block.tokens[:, 0]]
        accepted, next_token, drafted = torch.stack(parts).tolist()
        new = Round([], [] if batch.tracing else None)
        for row, (answer, place) in enumerate(zip(batch.live, here)):
            token = drafted[row] if accepted[row] else next_token[row]
            new.tokens.append([token])
            if batch.tracing:
                steps = _steps(columns, row, batch, place, asks[row])
                answer.rescued += sum(step["rescued"] for step in steps)
                if not accepted[row]:
                    source = "residual" if asks[row] else "bonus"
                    steps.append(_added(batch, row, place, token, source))
                new.trace.append(steps)
            if asks[row] and drafted[row] in pair.eos:
                # Nothing is drafted after an end token, whether it is accepted or not.
                undrafted = place.size - place.slot - 1
                answer.drafted -= undrafted
                answer.draft_calls -= undrafted
            answer.accepted += accepted[row]
            place.slot += 1
            if not accepted[row]:
                del places[batch.ids[row]]
        yield new


def _begin_blocks(places, gamma, batch):
    """Give every live row a block that has none; it is a call, and drafts, from now on."""
    for answer_id, answer, position in zip(batch.ids, batch.live, batch.generated()):
        if answer_id not in places:
            # The target adds a token to every block, so it drafts one less than there is room for.
            size = min(gamma, batch.max_new - position - 1)
            places[answer_id] = Place(answer.target_calls, size)
            answer.target_calls += 1
            answer.drafted += size
            answer.draft_calls += size


def _steps(columns, row, batch, place, asks):
    """The trace row of a row's drafted token, in a list; none where nothing was drafted."""
    position = batch.length[row] - batch.prompt[row]
    steps = tested(columns, row, position, place.turn, int(asks))
    return [step | {"slot": place.slot} for step in steps]


def _added(batch, row, place, token, source):
    """The trace row of the token that the target added at a place."""
    begin = batch.length[row] - batch.prompt[row] - place.slot
    return added(begin, place.turn, place.slot, token, source)
