"""What if the target were dearer? Speeds on other machines, and where a claim about speed holds.

On a machine whose draft costs c of the target, and where verifying w tokens takes 1 + s (w - 1), a
round that drafts d tokens takes 1 + (c + s) d forwards of the target. So of the two numbers only
their sum counts: what a drafted token costs, x = c + s.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from helpers import stats
from helpers.ledger.paces import by_problem, counted, prices
from helpers.ledger.speeds import machine
from helpers.ledger.table import LONGEST
from helpers.methods import Autoregressive

ALONE = "AS_large"
COSTS = tuple(np.geomspace(0.005, 1.0, 41))  # c, from a free draft to one as dear as the target
CONTRAST_DRAWS = 1000  # of a bootstrap: there are hundreds of them

# Draft and target -> c: from their parameters (model cards, in billions), which decides where the
# weights' bytes do; and from the tokens per second of each alone in vLLM 0.6.3 on one A100, bf16,
# batch 1 (Qwen2.5 Speed Benchmark, qwen.readthedocs.io).
PUBLISHED = {
    "0.5B + 7B": (0.49 / 7.61, 84.28 / 311.55),
    "1.5B + 32B": (1.54 / 32.5, 22.13 / 183.33),
}


@dataclass(frozen=True)
class Claim:
    """A claim about speed: a method makes more than `above` times a baseline's tokens/s."""

    method: str
    baseline: str = ALONE
    above: float = 1.0

    def __str__(self):
        more = f" by more than {100 * (self.above - 1):.3g} %" if self.above != 1 else ""
        return f"{self.method} is faster than {self.baseline}{more}"


def speed_ups(tuning, reported, kinds, pairs, machines):
    """Ratios of speed on many machines, each method at its best γ there.

    tuning, reported: ledgers; γ is chosen on the first, speeds are of the second. kinds: label ->
    a function of γ (1 to 16) that returns a method. pairs: (label, baseline), of which AS_large is
    always known. machines: x -> forward times. Returns a DataFrame: x, method, baseline, gamma (of
    the method), ratio of tokens per second, with low and high.
    """
    blocks = range(1, LONGEST + 1)
    alone = Autoregressive("target", label=ALONE)
    listed = {ALONE: [alone]}
    listed |= {label: [make(gamma) for gamma in blocks] for label, make in kinds.items()}
    chosen_by = {label: _sums(tuning, methods) for label, methods in listed.items()}
    shown = {label: _sums(reported, methods) for label, methods in listed.items()}
    lines = []
    for x, forward in machines.items():
        price = prices(forward)
        best = {
            label: int(np.argmax([_per_second(table.sum(0), price) for table in tables]))
            for label, tables in chosen_by.items()
        }
        for label, baseline in pairs:
            ratio = _ratio(shown[label][best[label]], shown[baseline][best[baseline]], price)
            line = {"x": x, "method": label, "baseline": baseline, "gamma": best[label] + 1}
            lines.append(line | {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high})
    return pd.DataFrame(lines)


def straight(costs=tuple(np.geomspace(0.005, 2.0, 49))):
    """Machines by what a drafted token costs, x = c + s, for `speed_ups`."""
    return {float(x): machine(float(x), 0.0) for x in costs}


def with_draft_at(forward, costs=COSTS):
    """This machine with another draft: c -> forward times, for `speed_ups`.

    The target keeps its times, in units of its forward of one token; the draft's are stretched.
    """
    is_draft = forward.model == "draft"
    one = forward.set_index(["model", "width"]).seconds
    machines = {}
    for c in costs:
        unit = np.where(is_draft, one["draft", 1] / c, one["target", 1])
        machines[float(c)] = forward.assign(seconds=forward.seconds / unit)
    return machines


def _sums(ledger, methods):
    """Tokens and parts of each problem for every method: a list of (problems, 1 + 19)."""
    tables = []
    for method in methods:
        found = counted(ledger, method)
        tables.append(by_problem(found, found.frame.emitted).to_numpy())
    return tables


def _per_second(sums, price):
    return sums[..., 0] / (sums[..., 1:] @ price)


def _ratio(own, other, price):
    """Tokens per second ÷ those of another, paired by problem. Returns Interval."""
    table = np.column_stack([own[:, 0], own[:, 1:] @ price, other[:, 0], other[:, 1:] @ price])
    return stats.bootstrap(
        table, lambda m: (m[..., 0] / m[..., 1]) / (m[..., 2] / m[..., 3]), CONTRAST_DRAWS
    )


# ---- where a claim holds -----------------------------------------------------------------------


def at(table, method, baseline, x):
    """γ, ratio, low and high of one pair of `speed_ups` at any x (a number, or an array of them).

    Between two machines ratios are taken as linear in log x and γ is that of the nearer; beyond the
    table's ends they are those of the ends. Returns four numbers or arrays.
    """
    part = pair_of(table, method, baseline)
    places = np.log(part.x.to_numpy())
    here = np.clip(np.log(np.maximum(x, 1e-9)), places[0], places[-1])
    ratios = [np.interp(here, places, part[name]) for name in ("ratio", "low", "high")]
    borders = (places[1:] + places[:-1]) / 2
    return part.gamma.to_numpy()[np.searchsorted(borders, here)], *ratios


def pair_of(table, method, baseline):
    """The rows of one pair, x ascending."""
    part = table[(table.method == method) & (table.baseline == baseline)]
    return part.sort_values("x")


def word_at(table, claim, x):
    """Whether a claim holds at x: holds, does not hold, undecided."""
    _, _, low, high = at(table, claim.method, claim.baseline, x)
    if low > claim.above:
        return "holds"
    return "does not hold" if high < claim.above else "undecided"


def spans(table, claim, bound="low"):
    """Where an end of the interval lies above the claim's threshold: [(from, to)] of x.

    bound: "low": the claim holds; "high": it is not refuted. Ends between two machines are read off
    the straight line (over log x) between them.
    """
    part = pair_of(table, claim.method, claim.baseline)
    x = np.log(part.x.to_numpy())
    over = part[bound].to_numpy() - claim.above
    found = []
    start = x[0] if over[0] > 0 else None
    for i in range(1, len(x)):
        if (over[i] > 0) == (over[i - 1] > 0):
            continue
        crossing = x[i - 1] + (x[i] - x[i - 1]) * over[i - 1] / (over[i - 1] - over[i])
        if start is None:
            start = crossing
        else:
            found.append((start, crossing))
            start = None
    if start is not None:
        found.append((start, x[-1]))
    return [(float(np.exp(low)), float(np.exp(high))) for low, high in found]


def region(table, claim, here=None):
    """A claim with the costs of the draft at which it holds, as a sentence without its full stop.

    table: of `speed_ups` over c; here: this machine's c. 'SP is faster than AS_large where the
    draft costs less than 0.41 of the target (not excluded: less than 0.47) (here 0.29)'.
    """
    part = pair_of(table, claim.method, claim.baseline)
    ends = part.x.min(), part.x.max()
    shown, possible = (
        [_where(low, high, ends) for low, high in spans(table, claim, bound)]
        for bound in ("low", "high")
    )
    tried = f"whatever the draft costs, from {ends[0]:.2g} to {ends[1]:.2g} of the target"
    if shown == [""]:
        words = tried
    elif shown:
        words = f"where the draft costs {' or '.join(shown)} of the target"
    else:
        words = f"nowhere that is shown, {tried}" if possible else f"nowhere, {tried}"
    if possible != shown:
        words += f" (not excluded: {' or '.join(possible) or 'anywhere'})"
    return f"{claim} {words}" + (f" (here {here:.2g})" if here is not None else "")


def _where(low, high, ends):
    """One span in words; "" where it is all that was looked at."""
    from_start, to_end = np.isclose([low, high], ends, rtol=1e-6)
    if from_start and to_end:
        return ""
    if from_start:
        return f"less than {high:.2g}"
    if to_end:
        return f"more than {low:.2g}"
    return f"{low:.2g} to {high:.2g}"


def where_claims_hold(here, by_sum, claims, slopes=(0.0, 0.1)):
    """Where each claim holds, on this machine and where verifying costs `slopes`.

    here: of `speed_ups` over c; by_sum: over x = c + s. Returns claim -> machine -> {"holds":
    spans of c, "undecided": those and where it is neither refuted}, all in words and numbers.
    """
    shifts = {"this machine's": (here, 0.0)}
    shifts |= {f"{slope:g} per token" if slope else "free": (by_sum, slope) for slope in slopes}
    ends = here.x.min(), here.x.max()
    found = {}
    for claim in claims:
        found[str(claim)] = {}
        for name, (table, slope) in shifts.items():
            found[str(claim)][name] = {
                word: _shifted(spans(table, claim, bound), slope, ends)
                for word, bound in (("holds", "low"), ("undecided", "high"))
            }
    return found


def _shifted(found, slope, ends):
    """Spans of x as spans of c = x - slope, cut to the costs that are looked at."""
    moved = [(max(low - slope, ends[0]), min(high - slope, ends[1])) for low, high in found]
    return [span for span in moved if span[0] < span[1]]
