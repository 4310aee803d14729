"""Say what to deploy for two models, a task and this machine, in print and as a page (make advise).

    python -m helpers.make.advise [--pair P | --draft MODEL --target MODEL] [--task TASK]
        [--problems 50] [--temperature 1] [--top-k 0] [--top-p 1] [--run NAME]

Answers of the target are read with both models, forwards are timed, and from these follow the best
draft length, what relaxed rules would add and cost, and on which machines that holds
(helpers/make/advice.py). A few timed answers check the prediction. The page is
data/results/PAIR/advice/advice.md; another advice on the pair replaces it, unless --run gives one a
name of its own.
"""

import argparse
import os
import platform
import time
from dataclasses import dataclass
from functools import partial

import matplotlib.pyplot as plt
import pandas as pd
from scipy.optimize import isotonic_regression

from helpers import common, experiments, ledger, models, rules, stats, store, tasks
from helpers.ledger import judging
from helpers.make import advice
from helpers.make.advice import ALONE
from helpers.make.parameters import check_room
from helpers.methods import Autoregressive, Sampling, Speculative
from helpers.models import presets
from helpers.plots import deploying, style

DEFAULT_PAIR = "pocket"
DEFAULT_TASK = "pocket-arithmetic"  # of the default pair
USUAL = 50  # problems, where nobody says how many
LEAST = 10  # problems: five answers of each half are timed
TIMED = 5
REPEATS = 3  # of every timed answer the middle run counts
TARGET = Autoregressive("target")


# ---- what is asked for -------------------------------------------------------------------------


def parsed(arguments):
    """The command line; a pair of two models is known by its name afterwards."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.make.advise", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--pair", default=DEFAULT_PAIR, help="a pair's name")
    parser.add_argument("--draft", help="a hub id or a folder, with --target")
    parser.add_argument("--target", help="a hub id or a folder, with --draft")
    parser.add_argument("--task", default="", help="a task, or a file of prompts")
    parser.add_argument("--problems", type=int, help=f"how many are answered ({USUAL})")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0, help="0: all tokens")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--run", default="", help="a name, to keep this advice beside others")
    given = parser.parse_args(arguments)
    given.run = common.checked_run(given.run)
    if (given.draft is None) != (given.target is None):
        here, missing = ("--draft", "--target") if given.draft else ("--target", "--draft")
        raise ValueError(f"{here} was given without {missing}; a pair needs both, or a name")
    if given.draft:
        # make hands over the default pair's name where none was chosen.
        name = None if given.pair == DEFAULT_PAIR else given.pair
        given.pair = presets.give(name, given.draft, given.target)
    presets.preset_of(given.pair)
    if not given.task and given.pair != DEFAULT_PAIR:
        raise ValueError(
            f"no task was given for {given.pair}; name one (TASK=gsm8k) or a file of your prompts "
            "(TASK=my-prompts.jsonl)"
        )
    given.task = given.task or DEFAULT_TASK
    return given


def chosen_problems(task, count):
    """The problems to answer: as many as asked for, or the usual number as far as there are."""
    if count is not None and count < LEAST:
        raise ValueError(
            f"problems was {count}; advice needs {LEAST} or more: it is chosen on one half and "
            "reported on the other"
        )
    if count is not None:
        return tasks.load(task, count)
    found = tasks.load(task)[:USUAL]
    if len(found) < LEAST:
        raise ValueError(
            f"{task} has {len(found)} prompts; advice needs {LEAST} or more: it is chosen on one "
            "half and reported on the other"
        )
    return found


# ---- this machine ------------------------------------------------------------------------------


def measured_machine(pair, book, sampling):
    """Seconds of the decoders' steps on this machine, as of ledger.medians.

    book: of the half on which policies are chosen; steps are timed at its middle context.
    """
    context = min(ledger.middle_context(book), pair.context - 2 * advice.LONGEST)
    repeats = ledger.forward_repeats(pair, max(1, context), sampling=sampling, at_most_s=20)
    forward = ledger.medians(repeats)
    is_target = forward.model == "target"
    # More tokens take no less time: where the clock says so, it is its own noise.
    forward.loc[is_target, "seconds"] = isotonic_regression(forward.seconds[is_target]).x
    return forward


@dataclass(frozen=True)
class Check:
    """Timed answers beside what was predicted for them. Intervals over the timed problems.

    advised, alone: tokens per second measured ÷ predicted; gain: measured, advised ÷ alone.
    """

    advised: stats.Interval
    alone: stats.Interval
    gain: stats.Interval
    n: int


def timing_check(pair, problems, reported, policy, forward, sampling):
    """Time the advised draft length and the target alone on problems of the reported half."""
    advised = Speculative(rules.STRICT, policy, label="SP")
    times = experiments.timed(pair, [TARGET, advised], problems, repeats=REPEATS, sampling=sampling)
    agreed = partial(judging.timed_over_predicted, times, forward=forward)
    return Check(
        advised=agreed(advised.label, reported.counts(policy)),
        alone=agreed(TARGET.label, reported.alone),
        gain=stats.speed_up(times, advised.label, TARGET.label),
        n=len(problems),
    )


# ---- the page ----------------------------------------------------------------------------------


def shown(interval, unit=""):
    """An interval with three significant digits."""
    estimate, low, high = (
        style.number(value) for value in (interval.estimate, interval.low, interval.high)
    )
    return f"{estimate}{unit} [{low}, {high}]"


def small(interval):
    """An interval of small numbers, with two significant digits."""
    estimate, low, high = map(_two_digits, (interval.estimate, interval.low, interval.high))
    return estimate if estimate == low == high else f"{estimate} [{low}, {high}]"


def _two_digits(value):
    if value == float("inf"):
        return "∞"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def answer(found):
    """The advice in a sentence or two."""
    speed = shown(found.speeds[found.chosen], " tokens/s")
    gain = shown(found.gains[found.chosen])
    how = f"strict SP, {found.chosen}"
    if found.word == "speculate":
        return (
            f"**Deploy {how}**: {speed} where the target alone has "
            f"{style.number(found.speeds[ALONE].estimate)}, {gain} times as many, and its texts "
            f"have the target's own law.{_fixed_too(found)}"
        )
    if found.word == "target alone":
        return (
            f"**Run the target alone**: speculation does not pay on this machine. The best way to "
            f"draft, {how}, has {speed}, {gain} times those of the target alone "
            f"({style.number(found.speeds[ALONE].estimate)})."
        )
    return (
        f"**Run the target alone, for the time being**: {how} has {speed}, {gain} times those of "
        f"the target alone ({style.number(found.speeds[ALONE].estimate)}). Whether speculation "
        f"pays is {found.pays}.{'' if found.pays.n_needed else ' More prompts would tell.'}"
    )


def _fixed_too(found):
    """What a fixed length gives, where it is a stop that is advised."""
    if found.chosen == found.fixed:
        return ""
    gain = shown(found.gains[found.fixed])
    return f" Where only a fixed length can be set, {found.fixed} gives {gain} times as many."


def lengths_table(found):
    """Tokens per second of the target alone, the best fixed γ and the best stop."""
    rows = []
    for label, speed in found.speeds.items():
        alone = label == ALONE
        rows.append(
            {
                "": label if alone else f"SP, {label}",
                "tokens/s": style.number(speed.estimate) if alone else shown(speed),
                "÷ target alone": "1" if alone else shown(found.gains[label]),
                "chosen": "yes" if label == found.chosen else "",
            }
        )
    return pd.DataFrame(rows)


def _per_thousand(value):
    return 1000 * value


def certainty(label):
    """How sure a rule's speed is."""
    if label.startswith("accept all"):
        return "estimate, the roughest"
    return "estimate"


def relaxed_table(found):
    """What every relaxed rule adds to SP and what it costs."""
    rows = []
    for label, one in found.relaxed.items():
        rows.append(
            {
                "rule": label,
                "calls saved per 1,000 tokens": small(one.saved.through(_per_thousand)),
                "of SP's": one.share.show(2, percent=True),
                "tokens/s ÷ SP's": one.ratio.show(3),
                "answers with a rescue": one.rescued.show(1, percent=True),
                "TV per 1,000 tokens": small(one.tv.through(_per_thousand)),
                "KL per 1,000 tokens, nats": small(one.kl.through(_per_thousand)),
                "speed is an": certainty(label),
            }
        )
    return pd.DataFrame(rows)


def on_lengths(found):
    """How the draft length was chosen."""
    gain = f"{shown(found.over_fixed)} times the tokens per second of SP, {found.fixed}"
    taken = "taken" if found.chosen == found.stop else "not taken"
    return (
        f"Of fixed lengths 1 to {advice.LONGEST} and {found.stops} stops the best were chosen on "
        f"the other half of the answers; all numbers here are of {found.n} answers that no choice "
        f"has seen. The stop has {gain}; it was {taken}, because on the other half its gain "
        f"{'lay' if found.chosen == found.stop else 'did not lie'} above 1 with its whole interval."
        f" A round of SP, {found.chosen}, writes {shown(found.tokens_per_round)} tokens."
    )


def on_rules(found, sampling):
    """What may be said of the relaxed rules as a family."""
    judged = stats.family({label: one.ratio for label, one in found.relaxed.items()}, above=1)
    faster = [label for label, word in judged.words.items() if word == "holds"]
    same = [label for label, one in found.relaxed.items() if one.tv.high == 0]
    lines = []
    if same:
        why = ", as at temperature 0" if sampling.temperature == 0 else ""
        lines.append(f"The same as SP on these answers{why}: {'; '.join(same)}.")
    if faster:
        gains = [found.relaxed[label].ratio.estimate - 1 for label in faster]
        least, most = (f"{100 * gain:.1f}" for gain in (min(gains), max(gains)))
        spread = f"{least} %" if len(gains) == 1 else f"{least} to {most} %"
        lines.append(
            f"Faster than SP, judged together (Holm): {len(faster)} of {len(judged.words)} rules, "
            f"by {spread} ({'; '.join(faster)})."
        )
    else:
        lines.append(f"None of the {len(judged.words)} rules is faster than SP (Holm).")
    if found.word != "speculate":
        against = {label: one.against for label, one in found.relaxed.items()}
        pays = stats.family(against, above=1).words
        paying = [label for label, word in pays.items() if word == "holds"]
        lines.append(
            "Faster than the target alone, judged together: "
            f"{'; '.join(paying) if paying else 'none of them'}."
        )
    return " ".join(lines)


CERTAIN = """\
*Certain*, but for which answers the target happened to write (that is what their intervals are
for): SP's own rounds, exact expectations for a fixed γ, and the share of answers with a rescue,
without bias. It bounds any change of accuracy, whatever the grader: decoded with the same uniforms,
an answer without a rescue is SP's, word for word. How far a draft that stops goes on after a wrong
token is counted on recorded continuations. *Estimates*: calls saved, speed, TV and KL of relaxed
rules, because these write other texts than the target's; they are right to first order in TV, and
roughest for rules that accept everything. Whether answers become worse is not measured here: decode
and grade them (notebooks 03 to 05)."""


def on_machines(found):
    """The range of cost ratios with the same advice."""
    low, high = found.region
    costs = [place.c for place in found.elsewhere]
    edges = []
    for at, step, side in ((low, -1, "below"), (high, 1, "above")):
        next_one = costs.index(at) + step
        if 0 <= next_one < len(costs):
            place = found.elsewhere[next_one]
            edges.append(f"{side}, at c = {style.number(place.c)}, it is {_advice_at(place)}")
        else:
            edges.append(f"{style.number(at)} is the {'least' if step < 0 else 'most'} tried")
    return (
        f"c is what a drafted token costs, in tokens of the target alone. This machine has c = "
        f"{style.number(found.c)}, and the advice is the same from c = {style.number(low)} to "
        f"{style.number(high)} with this machine's times of verifying ({'; '.join(edges)}). "
        f"The same: the same verdict on speculation, and where it is to speculate, at least "
        f"{100 * advice.NEAR_ENOUGH:.0f} % of the tokens per second of what would be chosen there."
    )


def _advice_at(place):
    """What would be advised at a c."""
    if place.word == "speculate":
        return f"SP, {place.chosen} ({shown(place.gain)} times the target alone)"
    gain = f"SP has {shown(place.gain)} times its tokens per second"
    if place.word == "undecided":
        return f"the target alone, undecided ({gain})"
    return f"the target alone ({gain})"


def on_timing(found, check):
    """How far timed answers are from what was predicted."""
    off = abs(check.advised.estimate - 1)
    misses = not check.advised.low <= 1 <= check.advised.high
    judged = "The prediction is within their scatter."
    if misses:
        judged = (
            f"The prediction is off by {100 * off:.0f} % here, more than the scatter of these "
            "answers: trust the measured ratio, and run this again on an idle machine."
        )
    return (
        f"{check.n} answers of the reported half were timed, each {REPEATS} times, the middle run "
        f"counts. Tokens per second measured ÷ predicted: SP, {found.chosen}, "
        f"{check.advised.show(2)}; target alone {check.alone.show(2)}. {judged} Measured, SP has "
        f"{check.gain.show(2)} times the tokens per second of the target alone; predicted for "
        f"all {found.n} answers: {found.gains[found.chosen].show(2)}.{_against(found, check)} The "
        "forward times themselves are taken as known in all other intervals."
    )


def _against(found, check):
    """A warning where the timed answers say the opposite of the advice."""
    slower = found.word == "speculate" and check.gain.high < 1
    faster = found.word == "target alone" and check.gain.low > 1
    if not slower and not faster:
        return ""
    was = "slower" if slower else "faster"
    return (
        f" **That is against the advice**: timed, speculation was {was} than the target alone. Run "
        "this again on an idle machine before you follow it."
    )


def on_making(pair, given, sampling, count, forward, seconds):
    """What the page rests on."""
    first = forward[forward.width == 1].set_index("model").seconds
    made = experiments.provenance(pair)
    return (
        f"{count} answers of the target to {given.task} (temperature {sampling.temperature:g}, "
        f"top-k {sampling.top_k or 'off'}, top-p {sampling.top_p:g}), read by both models; every "
        "interval is 95 %, over problems. Times are after the prompt, one answer at a time: a "
        f"token of the target alone takes {1e3 * first['target']:.3g} ms, a drafted token "
        f"{1e3 * first['draft']:.3g} ms, each with all that is done for it. "
        f"{pair.name} ({pair.precision}), revision {made['revision']}, on {made['device']}, torch "
        f"{made['torch']}, {platform.system()}; made in {seconds:.0f} s."
    )


def page(found, check, pair, given, sampling, count, forward, seconds):
    """The whole page as Markdown."""
    return "\n\n".join(
        [
            f"# What to deploy: {pair.name} on {given.task}",
            answer(found),
            "![Draft lengths, relaxed rules and other machines](advice.png)",
            "## How many tokens to draft",
            lengths_table(found).to_markdown(index=False, disable_numparse=True),
            on_lengths(found),
            f"The method: `{Speculative(rules.STRICT, found.policy)!r}`",
            f"## What a relaxed rule would add to SP, {found.chosen}",
            relaxed_table(found).to_markdown(index=False, disable_numparse=True),
            on_rules(found, sampling),
            CERTAIN,
            "## On other machines",
            on_machines(found),
            "## Timing check",
            on_timing(found, check),
            "## What this rests on",
            on_making(pair, given, sampling, count, forward, seconds),
        ]
    )


def draw(found, file):
    """The page's figure."""
    style.use()
    figure = deploying.advice(
        by_gamma=found.by_gamma,
        chosen=(found.chosen, found.speeds[found.chosen]),
        alone=found.speeds[ALONE],
        relaxed={label: (one.rescued, one.ratio) for label, one in found.relaxed.items()},
        by_cost=[(place.c, place.advised) for place in found.elsewhere],
        region=found.region,
        c=found.c,
    )
    with store.replacing(file) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    plt.close(figure)


def numbers(found, check):
    """Every headline number by name, for advice.json."""
    named = {f"tokens/s, {label}": speed for label, speed in found.speeds.items()}
    named |= {f"÷ target alone, {label}": gain for label, gain in found.gains.items()}
    named["measured ÷ predicted"] = check.advised
    named["measured ÷ predicted, target alone"] = check.alone
    return named


def main(arguments=None):
    begin = time.time()
    given = parsed(arguments)
    sampling = Sampling(given.temperature, given.top_k, given.top_p)
    problems = chosen_problems(given.task, given.problems)
    check_room(given.pair, presets.preset_of(given.pair), given.task)
    os.environ["SP_RUN"] = given.run
    folder = common.results(given.pair) / "advice"
    with store.locked(folder):
        pair = models.load_pair(given.pair)
        print(f"{pair.name} answers {len(problems)} problems of {given.task} ...", flush=True)
        tuning, reported = advice.halves(pair, problems, sampling)
        print("steps of both models are timed ...", flush=True)
        forward = measured_machine(pair, tuning.book, sampling)
        found = advice.advise(tuning, reported, forward)
        last = problems[len(problems) // 2 :][:TIMED]
        check = timing_check(pair, last, reported, found.policy, forward, sampling)
        seconds = time.time() - begin
        text = page(found, check, pair, given, sampling, len(problems), forward, seconds)
        draw(found, folder / "advice.png")
        store.write_text(folder / "advice.md", text + "\n")
        store.publish_facts(
            given.pair,
            "advice/advice",
            numbers=numbers(found, check),
            tables={"lengths": lengths_table(found), "relaxed": relaxed_table(found)},
            advice=found.word,
            chosen=found.chosen,
            policy=repr(found.policy),
            c=found.c,
            region=found.region,
            task=given.task,
            **experiments.provenance(pair),
        )
    print(f"\n{text}\n\nThe same, with its figure: {os.path.relpath(folder / 'advice.md')}")
    return found, check


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            "stopped; finished work is in data/cache and the same command goes on from there"
        ) from None
