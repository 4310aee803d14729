"""The ledger: exact expectations of speculative sampling from one reading of the target's answers.

`read` reads answers once with both models; everything else is computed from its tables:
`counts` (rounds, drafts, acceptances of a rule and a policy), `speed` and its like (with intervals,
on this machine or on `machine(c, slope)`), `match` and `front` (rules at equal savings),
`best_gamma` (draft lengths against an oracle), `Predicted` (speeds of methods by name, checked
against timed answers), `speed_ups` and `region` (other machines, and where a claim holds).
"""

from helpers.ledger.against_runs import check
from helpers.ledger.dearer import (
    ALONE,
    COSTS,
    PUBLISHED,
    Claim,
    at,
    pair_of,
    region,
    spans,
    speed_ups,
    straight,
    where_claims_hold,
    with_draft_at,
    word_at,
)
from helpers.ledger.lengths import best_gamma, oracle
from helpers.ledger.matching import Family, Match, achievable, families, front, match
from helpers.ledger.paces import (
    Predicted,
    Timed,
    busyness,
    forward_repeats,
    medians,
    middle_context,
    place,
)
from helpers.ledger.programme import Counts, counts
from helpers.ledger.reading import read, written_by_target
from helpers.ledger.speeds import (
    accept_ratio,
    alone,
    calls_per_token,
    calls_saved,
    calls_saved_share,
    kl_per_token,
    machine,
    seconds,
    speed,
    speed_ratio,
    tokens_per_round,
    tv_per_token,
)
from helpers.ledger.table import Ledger, load
