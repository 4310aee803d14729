"""What three people should deploy, worked out from the published ledger of each pair.

What a drafted token costs, in steps of the target, decides most (helpers/ledger/dearer.py): the
draft's step and what each further token to verify adds. On a laptop speeds are those of notebook
03. For the others they come from the ledger at a cost: γ is chosen on half of its problems, and
speeds are of the other half. For two the cost is a round number with its reason, which is assumed;
for the GPU on which a pair has run it is what its timed answers say.
"""

from dataclasses import dataclass

from helpers import ledger, rules, store
from helpers.make import stops, summary
from helpers.methods import Fixed, Speculative
from helpers.stats import Interval

WORTH = 0.01  # a gain in speed below this is not worth a change
ALONE = "the target alone"
LOSSES = ("SP_entropy is as accurate as SP", "its loss is paid for by its saving")  # of notebook 03


@dataclass(frozen=True)
class Person:
    """Who asks, what a drafted token costs there, and why that.

    cost: LAPTOP, as on the machine of notebook 03; ON_GPU, as in a pair's run on a GPU, which a
    pair without one is not told about; or a number of steps.
    """

    who: str
    cost: float | str
    why: str


LAPTOP, ON_GPU = "laptop", "on a GPU"
PEOPLE = (
    Person("A laptop", LAPTOP, "the machine of notebook 03, with its numbers"),
    Person(
        "One GPU and a target ten times the draft",
        0.1,
        "assumed: a step takes as long as its weights take to read, a block no longer than a token",
    ),
    Person(
        "A server with full batches",
        1.1,
        "assumed: every token to verify costs a step of its own, and the draft a tenth of one",
    ),
    Person("One GPU and a small pair", ON_GPU, "measured: the timed answers of a run on a GPU"),
)


def recommendations():
    """The lines at the head of the page on deploying: one per person, with every pair that ran."""
    if not any(cost_here(pair) for pair in summary.PAIRS):
        return "Notebook 03 has not been run yet."
    lines = []
    for person in PEOPLE:
        pairs = summary.PAIRS
        if person.cost == ON_GPU:
            pairs = [pair for pair in pairs if cost_on_gpu(pair)]
        advice = " ".join(f"*{pair}*: {_advice(pair, person)}" for pair in pairs)
        if advice:
            lines.append(f"- **{person.who}** ({person.why}). {advice}")
    return "\n".join(lines)


def cost_here(pair):
    """What a drafted token cost in the timed answers of notebook 03; None without them."""
    if not {"gammas", "tau", "checks"} <= set(summary.facts(pair, "03")):
        return None
    return _cost_of(store.table(pair, "03_times"))


def cost_on_gpu(pair):
    """What a drafted token cost in the timed answers of notebook 05 on a GPU; None without them."""
    return _cost_of(store.table(f"{pair}/{summary.STAND_IN}", "05_times"))


def _cost_of(rows):
    """What a drafted token cost in timed answers, in steps of the target; None without them.

    The draft's seconds per drafted token, and what a round of SP takes beyond one step of the
    target ÷ the tokens that it drafted.
    """
    if rows is None or not {"AS_large", "SP"} <= set(rows.method):
        return None
    sums = rows.groupby("method")[["seconds", "draft_s", "drafted", "target_calls"]].sum()
    step = sums.seconds["AS_large"] / sums.target_calls["AS_large"]
    sp = sums.loc["SP"]
    per_round = (sp.seconds - sp.draft_s) / sp.target_calls
    drafted = sp.drafted / sp.target_calls
    return float(sp.draft_s / sp.drafted / step + max(per_round / step - 1, 0) / drafted)


def _advice(pair, person):
    """What to deploy, in a sentence with its numbers."""
    here = cost_here(pair)
    if here is None:
        return "notebook 03 has not been run."
    books = stops.halves(pair)
    cost = {LAPTOP: here, ON_GPU: cost_on_gpu(pair)}.get(person.cost, person.cost)
    if person.cost == LAPTOP:
        words = _words(pair, cost, _as_published(pair))
    elif books is None:
        return "notebook 05, which publishes the ledger, has not been run."
    else:
        words = _words(pair, cost, _at(pair, books, cost))
    if books is None or words.startswith(ALONE):
        return words
    return f"{words} {_stop_words(stops.best(*books, [cost])[cost])}"


def _stop_words(stop):
    """Whether to end blocks by the draft's entropy as well, in a sentence with its number."""
    how = f"where H(q) > {stop.policy.stop:.2g} nats, after {stop.policy.gamma} tokens at most"
    gain = f"{stop.over_fixed.show(2)} × as fast as with the ledger's best γ, {stop.gamma}"
    if stop.over_fixed.low > 1 + WORTH:
        return f"End a block {how}: that makes SP {gain}."
    little = stop.over_fixed.high <= 1 + WORTH
    why = "too little" if little else f"not shown to be {100 * WORTH:.0f} % more"
    return f"A fixed γ: to end a block {how} makes SP {gain}, {why}."


def _words(pair, cost, found):
    """found: label -> (γ, its speed), SP's ÷ AS_large, and SP_entropy's ÷ SP."""
    (gamma, sp), (gamma_relaxed, relaxed) = found["SP"], found["SP_entropy"]
    at = f"where a drafted token costs {cost:.2g} of a step"
    if sp.low <= 1:
        word = "slower than" if sp.high < 1 else "not told from"
        return f"{ALONE}; {at}, SP is {word} it ({sp.show(2)} ×, at γ = {gamma})."
    words = f"SP at γ = {gamma}, {sp.show(2)} × the target alone {at}."
    relaxed_words = f"{relaxed.show(3)} × SP at γ = {gamma_relaxed}"
    if relaxed.high <= 1 + WORTH:
        return f"{words} Not relaxed: relaxed it makes {relaxed_words}, which is too little."
    if relaxed.low <= 1 + WORTH:
        more = f"not shown to be {100 * WORTH:.0f} % more"
        return f"{words} Not relaxed: relaxed it makes {relaxed_words}, {more}."
    lost = f"accuracy {summary.points(pair, '03', 'accuracy_change')}"
    checks = [summary.facts(pair, "03")["checks"].get(claim) for claim in LOSSES]
    if "holds" in checks and "does not hold" not in checks:
        return f"{words} Relaxed it makes {relaxed_words} ({lost})."
    price = f"but its price is not known ({lost})"
    return f"{words} Not relaxed: relaxed it makes {relaxed_words}, {price}."


def _as_published(pair):
    """What `_words` takes, as notebook 03 published it."""
    gammas = summary.facts(pair, "03")["gammas"]
    names = {"SP": "sp_over_large", "SP_entropy": "entropy_over_sp"}
    return {label: (gammas[label], summary.number(pair, "03", names[label])) for label in names}


def _at(pair, books, cost):
    """The same where a drafted token costs so many steps, from halves of the published ledger."""
    tau = summary.facts(pair, "03")["tau"]
    tuning, reported = books
    kinds = {
        "SP": lambda gamma: Speculative(rules.STRICT, Fixed(gamma)),
        "SP_entropy": lambda gamma: Speculative(rules.SP_entropy(tau), Fixed(gamma)),
    }
    table = ledger.speed_ups(
        tuning,
        reported,
        kinds,
        [("SP", ledger.ALONE), ("SP_entropy", "SP")],
        {cost: ledger.machine(cost)},
    )
    n = reported.answers.problem_id.nunique()
    return {
        line.method: (line.gamma, Interval(line.ratio, line.low, line.high, n))
        for line in table.itertuples()
    }
