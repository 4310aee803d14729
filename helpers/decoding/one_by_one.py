"""Speculative sampling of many rows at once, without the tokens that a block throws away.

A lone row drafts a block ahead because a forward of several tokens costs the target hardly more
than one. With many rows on a CPU every token costs its multiplications, and what stands after a
rejection is multiplied for nothing. Whether a token is accepted depends on its prefix and on its
position's uniforms alone, so here each row advances by one token a step, through the same blocks:
the same tokens, calls and traces as `speculative`, to the bit where layers are packed.

Nor is anything decoded twice that two methods have in common. With the same uniforms they write the
same text until one keeps a token that the other does not, so methods that draft alike share a row
until then, and it goes on as two from there.

Two counts differ a little. What a block would have drafted after a rejection counts whole, though
the draft might have ended it at an end token; and what it accepted after a stop text is not seen.
"""

from dataclasses import dataclass, replace

import torch

from helpers import rules
from helpers.decoding.batch import Round
from helpers.decoding.speculative import added, apply_rule, draft_block, next_alone, tested
from helpers.methods import Fixed

FEWEST_ROWS = 8  # with fewer, reading the weights costs more than the multiplications


BY_RULE = ("tv", "kl", "overshoot", "path")  # what differs in the traces of methods that agree
OTHERS = "of the others"  # where a trace row keeps these of a row's methods but the first


@dataclass
class Place:
    """Where a row stands in its block: the block's number, its drafted tokens, the next slot.

    methods: the numbers of those whose answer the row is.
    """

    methods: list
    turn: int = 0
    size: int = 0
    slot: int = 0


def is_cheaper(pair, method, rows):
    """Whether to decode a speculative method like this: many rows, a large pair, a CPU.

    Only for blocks of a fixed length, and rules that look at nothing past the slot.
    """
    large_on_cpu = pair.device.type == "cpu" and not pair.small
    looks_past = hasattr(method.rule, "look_ahead")
    return rows >= FEWEST_ROWS and large_on_cpu and not method.policy.adaptive and not looks_past


def one_by_one(pair, methods, batch, sampling):
    """One token per step and row: one drafted and tested, or the target's after a whole block.

    Every prompt's row begins as the answer of all methods; `answers_of` tells them apart at the
    end. Yields Rounds as a decoder does.
    """
    batch.read_prompts(pair.draft, pair.target)
    gamma = methods[0].policy.gamma
    # Whole distributions are kept where any of the rules looks at them.
    looking = [method for method in methods if rules.looks_at(method.rule, "laws")]
    single = replace((looking or methods)[0], policy=Fixed(1))
    batch.places = {number: Place(list(range(len(methods)))) for number in batch.prompt_of}
    while batch.live:
        _begin_blocks(batch, gamma)
        places = [batch.places[number] for number in batch.ids]
        asks = [place.slot < place.size for place in places]
        with batch.clock.phase("draft"):
            block = draft_block(pair, single, batch, sampling, ask_after=())
        with batch.clock.phase("verify"):
            last, start = batch.tail(1)
            scores = pair.target.logits(pair.target.forward(last, start))
        if block is not None:
            # A row whose block is whole drafts beside the others, and its draft is not looked at.
            block.drafted = torch.tensor(asks, device=pair.device).long()
        found = _decide(methods, places, block, scores, batch, sampling)
        row_of = _part(batch, places, found)
        drafted = None if block is None else block.tokens[:, 0].tolist()
        positions = batch.generated()
        new = Round([], [] if batch.tracing else None)
        for row, (answer, old) in enumerate(zip(batch.live, row_of)):
            place = batch.places[batch.ids[row]]
            accepted, next_token, _ = found[place.methods[0]]
            is_accepted = accepted[old]
            token = drafted[old] if is_accepted else next_token[old]
            new.tokens.append([token])
            if batch.tracing:
                steps = _steps(found, old, positions[row], place, asks[old])
                answer.rescued += sum(step["rescued"] for step in steps)
                if not is_accepted:
                    source = "residual" if asks[old] else "bonus"
                    begin = positions[row] - place.slot
                    steps.append(added(begin, place.turn, place.slot, token, source))
                new.trace.append(steps)
            if asks[old] and drafted[old] in pair.eos:
                # Nothing is drafted after an end token, whether it is accepted or not.
                undrafted = place.size - place.slot - 1
                answer.drafted -= undrafted
                answer.draft_calls -= undrafted
            answer.accepted += is_accepted
            place.slot += 1
            if not is_accepted:
                place.slot = place.size = 0
        yield new


def answers_of(batch, methods):
    """The Generations of every method, in the order of the prompts: a list per method."""
    answers = [{} for _ in methods]
    for number, answer in enumerate(batch.answers):
        for method in batch.places[number].methods:
            own = answer.copy()
            if own.trace is not None:
                own.trace = [_of_method(step, method) for step in own.trace]
            answers[method][batch.prompt_of[number]] = own
    return [[own for _, own in sorted(by_prompt.items())] for by_prompt in answers]


def _begin_blocks(batch, gamma):
    """Give every live row a block that has none; it is a call, and drafts, from now on."""
    for number, answer, position in zip(batch.ids, batch.live, batch.generated()):
        place = batch.places[number]
        if place.slot == 0:
            # The target adds a token to every block, so it drafts one less than there is room for.
            place.size = min(gamma, batch.max_new - position - 1)
            place.turn = answer.target_calls
            answer.target_calls += 1
            answer.drafted += place.size
            answer.draft_calls += place.size


def _decide(methods, places, block, scores, batch, sampling):
    """What every method that has a row does: its number -> (accepted, next token, columns).

    The first two are lists over the rows, the columns those of a trace.
    """
    wanted = sorted({number for place in places for number in place.methods})
    if block is None:
        tokens = next_alone(scores, batch, sampling).tolist()
        return dict.fromkeys(wanted, ([0] * len(tokens), tokens, {}))
    p = sampling.warp(scores)
    found = {}
    for number in wanted:
        accepted, token, columns = apply_rule(methods[number].rule, block, scores, p, batch)
        found[number] = (*torch.stack([accepted, token]).tolist(), columns)
    return found


def _part(batch, places, found):
    """Part the rows whose methods do not do the same. Returns each row's place before that."""
    row_of = list(range(len(places)))
    apart = []  # (row, the methods that leave it together)
    for row, place in enumerate(places):
        groups = {}
        for number in place.methods:
            accepted, token, _ = found[number]
            does = (1, None) if accepted[row] else (0, token[row])
            groups.setdefault(does, []).append(number)
        first, *others = groups.values()
        place.methods = first
        apart += [(row, numbers) for numbers in others]
    if apart:
        batch.part([row for row, _ in apart])
        for row, numbers in apart:
            batch.places[batch.ids[len(row_of)]] = replace(places[row], methods=numbers)
            row_of.append(row)
    return row_of


def _steps(found, row, position, place, asks):
    """The trace row of a row's drafted token, in a list; none where nothing was drafted."""
    first, *others = place.methods
    steps = tested(found[first][2], row, position, place.turn, int(asks))
    for step in steps:
        step["slot"] = place.slot
    if steps and others:
        step = steps[0]
        own = {}
        for number in others:
            (other,) = tested(found[number][2], row, position, place.turn, 1)
            own[number] = {name: other[name] for name in BY_RULE}
        step[OTHERS] = own
    return steps


def _of_method(step, number):
    """A trace row as one of a row's methods has it."""
    if OTHERS not in step:
        return step
    own = step[OTHERS].get(number, {})
    return {name: own.get(name, value) for name, value in step.items() if name != OTHERS}
