"""Statistics: intervals over problems, verdicts, families of them, early looks, the cost model."""

from helpers.stats.binary import clopper_pearson, tango
from helpers.stats.cost import cost_limit, tokens_per_round, tokens_per_second
from helpers.stats.curves import auroc, auroc_gain, pareto, roc
from helpers.stats.intervals import (
    FEW_CHANGES,
    NO_JUDGE,
    Interval,
    between_tasks,
    bootstrap,
    difference,
    graded,
    mean,
    nothing,
    over_tasks,
    paired_interval,
    per_problem,
    proportion,
    ratio,
    score_interval,
    speed_up,
    ungraded,
    widened,
)
from helpers.stats.sequential import crossing, looks, sequential_verdict
from helpers.stats.verdicts import (
    FEW_PROBLEMS,
    POWER,
    UNDECIDED,
    Family,
    Verdict,
    family,
    net_gain,
    no_loss,
    null_contrast,
    overall,
    problems_needed,
    verdict,
)
