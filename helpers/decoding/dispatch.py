"""Run a method: one decoder for each kind of method, one loop for all of them.

A decoder is a generator `decoder(pair, method, batch, sampling)` that yields one Round after the
other while the batch has live rows. The loop here appends what it yields, tells whoever watches,
and takes finished rows out. Rows of a batch advance independently, each with its own length.
Every uniform is a pure function of (key, position, purpose), so two methods that are run on the
same key are coupled: they agree until their first different decision.
"""

import pandas as pd
import torch

from helpers import taking_turns
from helpers.decoding.alone import autoregressive, selective
from helpers.decoding.batch import Batch, cut_at_stop
from helpers.decoding.one_by_one import answers_of, is_cheaper, one_by_one
from helpers.decoding.routed import routed
from helpers.decoding.speculative import speculative
from helpers.decoding.stepwise import stepwise
from helpers.methods import Autoregressive, Glimpse, Routed, Sampling, Selective, Speculative

# A new decoder needs a line here (helpers/README.md has the recipe).
DECODERS = {
    Autoregressive: autoregressive,
    Selective: selective,
    Glimpse: stepwise,
    Speculative: speculative,
    Routed: routed,
}


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
    rows=None,
    on_round=None,
):
    """Run `method` on prompts (lists of token ids), one row each. Returns a list of Generation.

    keys: one (seed, problem number) per prompt. stop: texts that end an answer. rows: how many are
    decoded at once (None: all); the others follow where answers end. on_round(generations) is
    called after every round; returning True ends the run where it is. Seconds are filled for a
    single prompt only: a batch has no time per answer.
    """
    rows = rows or len(prompts)
    decoder = decoder_of(method)
    if _goes_one_by_one(pair, method, min(rows, len(prompts))):
        decoder, method = one_by_one, [method]
    per_round = getattr(method, "per_round", 1)
    batch = _batch(pair, prompts, keys, max_new_tokens, stop, trace, per_round, rows)
    seconds = _run(batch, decoder(pair, method, batch, sampling), on_round)
    answers = [_finished(pair, answer, stop) for answer in batch.answers]
    if len(prompts) == 1:
        note_seconds(answers[0], batch.clock, seconds)
    return answers


@torch.inference_mode()
def decode_together(
    pair,
    methods,
    prompts,
    keys,
    *,
    sampling=Sampling(),
    max_new_tokens=128,
    stop=(),
    trace=False,
    rows=None,
):
    """Run methods that share rows (`share`) on the same prompts: what they agree on, once.

    As `decode`, which gives the same answers. Returns a list of Generation for each method.
    """
    rows = rows or len(prompts)
    batch = _batch(pair, prompts, keys, max_new_tokens, stop, trace, per_round=1, rows=rows)
    _run(batch, one_by_one(pair, methods, batch, sampling))
    return [
        [_finished(pair, answer, stop) for answer in answers]
        for answers in answers_of(batch, methods)
    ]


def share(pair, one, other, rows):
    """Whether two methods are decoded together: they draft alike, and go token by token here."""
    apart = not all(_goes_one_by_one(pair, method, rows) for method in (one, other))
    return not apart and one.policy == other.policy


def _goes_one_by_one(pair, method, rows):
    return decoder_of(method) is speculative and is_cheaper(pair, method, rows)


def _batch(pair, prompts, keys, max_new_tokens, stop, trace, per_round, rows):
    check_room(pair, prompts, max_new_tokens)
    return Batch(pair, prompts, keys, max_new_tokens, tuple(stop), trace, per_round, rows)


def _run(batch, rounds, on_round=None):
    """Add round after round to a batch until its rows have finished. Returns the seconds."""
    if len(batch.live) > 1:  # one row may be timed, and would be timed waiting
        rounds = taking_turns.each_together(rounds)
    for new in rounds:
        batch.add(new)
        if on_round and on_round(batch.answers):
            break
        batch.drop_finished()
        batch.admit()
    return batch.clock.stop()


def _finished(pair, answer, stop):
    """An answer with its text, and its trace as a table."""
    answer.text = text_of(pair, answer, stop)
    if answer.trace is not None:
        answer.trace = pd.DataFrame(answer.trace)
    return answer


def decoder_of(method):
    """The decoder of a method's class, or of the class that it is derived from."""
    for kind in type(method).__mro__:
        if kind in DECODERS:
            return DECODERS[kind]
    known = ", ".join(kind.__name__ for kind in DECODERS)
    raise ValueError(
        f"there is no decoder for {type(method).__name__}; DECODERS has {known}: "
        "add a line for it (helpers/README.md)"
    )


def check_room(pair, prompts, max_new_tokens):
    """Refuse what does not fit into the models' context."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens was {max_new_tokens}; it must be 1 or more")
    longest = max(len(p) for p in prompts)
    if longest + max_new_tokens > pair.context:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the context of "
            f"{pair.context}; shorten the prompt or lower max_new_tokens"
        )


def text_of(pair, answer, stop):
    """An answer's text, without its end token and what stands from a stop text on."""
    tokens = answer.tokens[:-1] if answer.finish == "eos" else answer.tokens
    text = pair.decode(tokens)
    return cut_at_stop(text, stop) if answer.finish == "stop" else text


def note_seconds(answer, clock, seconds):
    """Write a single row's times into its Generation; what no model took is the host's."""
    answer.seconds = seconds
    answer.prefill_s = clock.prefill
    answer.draft_s = clock.spent["draft"]
    answer.verify_s = clock.spent["verify"]
    answer.host_s = seconds - answer.draft_s - answer.verify_s
