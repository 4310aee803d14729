"""What three people should deploy, worked out from the published ledger of each pair.

What a drafted token costs, in steps of the target, decides most (helpers/ledger/dearer.py): the
draft's step and what each further token to verify adds. On a laptop speeds are those of notebook
03. For the other two the cost is a round number with its reason, and speeds come from the ledger: γ
is chosen on half of its problems, and speeds are of the other half.
"""

from dataclasses import dataclass

from helpers import ledger, rules, store
from helpers.make import summary
from helpers.methods import Fixed, Speculative
from helpers.stats import Interval

LEDGER = "05_ledger"  # the published part of notebook 05's
WORTH = 0.01  # a gain in speed below this is not worth another output distribution
LOSSES = ("SP_entropy is as accurate as SP", "its loss is paid for by its saving")  # of notebook 03


@dataclass(frozen=True)
class Person:
    """Who asks, what a drafted token costs there (None: as on the machine of notebook 03), why."""

    who: str
    cost: float | None
    why: str


PEOPLE = (
    Person("A laptop", None, "the machine of notebook 03, with its numbers"),
    Person(
        "One GPU and a target ten times the draft",
        0.1,
        "a step takes as long as its weights take to read, and a block no longer than a token",
    ),
    Person(
        "A server with full batches",
        1.1,
        "every token to verify costs a step of its own, and the draft a tenth of one",
    ),
)


def recommendations():
    """The lines at the head of the page on deploying: one per person, with every pair that ran."""
    pairs = [pair for pair in summary.PAIRS if cost_here(pair) and ledger.load(pair, LEDGER)]
    if not pairs:
        return "Notebooks 03 and 05 have not been run yet."
    lines = []
    for person in PEOPLE:
        advice = " ".join(f"*{pair}*: {_advice(pair, person)}" for pair in pairs)
        lines.append(f"- **{person.who}** ({person.why}). {advice}")
    lacking = [pair for pair in summary.PAIRS if pair not in pairs]
    more = f"Not run yet: {', '.join(lacking)}." if lacking else ""
    return summary.paragraphs("\n".join(lines), more)


def cost_here(pair):
    """What a drafted token cost in the timed answers of notebook 03, in steps; None without them.

    With SP's blocks of γ: the draft's seconds per drafted token, and what a round takes beyond one
    step of the target ÷ γ.
    """
    rows = store.table(pair, "03_times")
    if rows is None:
        return None
    sums = rows.groupby("method")[["seconds", "draft_s", "drafted", "target_calls"]].sum()
    step = sums.seconds["AS_large"] / sums.target_calls["AS_large"]
    sp = sums.loc["SP"]
    per_round = (sp.seconds - sp.draft_s) / sp.target_calls
    gamma = rows.gamma[rows.method == "SP"].iloc[0]
    return float(sp.draft_s / sp.drafted / step + max(per_round / step - 1, 0) / gamma)


def _advice(pair, person):
    """What to deploy, in a sentence with its numbers."""
    known = summary.facts(pair, "03")
    gamma, sp, relaxed = _as_published(pair) if person.cost is None else _at(pair, person.cost)
    at = f"where a drafted token costs {person.cost or cost_here(pair):.2g} of a step"
    if sp.low <= 1:
        word = "slower than" if sp.high < 1 else "not told from"
        return f"the target alone; {at}, SP is {word} it ({sp.show(2)} ×, at γ = {gamma})."
    words = f"SP at γ = {gamma}, {sp.show(2)} × the target alone {at}."
    paid = any(known["checks"].get(claim) == "holds" for claim in LOSSES)
    gains = relaxed.low > 1 + WORTH
    if gains and paid:
        return f"{words} Relaxed at τ = {known['tau']:g} it makes {relaxed.show(3)} × SP."
    why = "whose accuracy is not shown to be worth it" if gains else "which is too little"
    return f"{words} Not relaxed: that makes {relaxed.show(3)} × SP, {why}."


def _as_published(pair):
    """(γ, SP ÷ AS_large, SP_entropy ÷ SP) as notebook 03 published them."""
    gamma = summary.facts(pair, "03")["gammas"]["SP"]
    numbers = (summary.number(pair, "03", name) for name in ("sp_over_large", "entropy_over_sp"))
    return gamma, *numbers


def _at(pair, cost):
    """The same where a drafted token costs so many steps, from the published ledger."""
    tau = summary.facts(pair, "03")["tau"]
    book = ledger.load(pair, LEDGER)
    ids = book.answers.problem_id.unique()
    kinds = {
        "SP": lambda gamma: Speculative(rules.STRICT, Fixed(gamma)),
        "SP_entropy": lambda gamma: Speculative(rules.SP_entropy(tau), Fixed(gamma)),
    }
    found = ledger.speed_ups(
        book.of_problems(ids[0::2]),
        book.of_problems(ids[1::2]),
        kinds,
        [("SP", ledger.ALONE), ("SP_entropy", "SP")],
        {cost: ledger.machine(cost)},
    ).set_index("method")
    n = len(ids[1::2])
    ratios = (Interval(line.ratio, line.low, line.high, n) for line in found.itertuples())
    return found.gamma["SP"], *ratios
