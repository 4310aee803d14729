"""The ledger: exact expectations of speculative sampling from one reading of the target's answers.

`ledger.read` reads answers once with both models; everything else is computed from its tables.
"""

from helpers.ledger.programme import Counts, counts
from helpers.ledger.reading import read, written_by_target
from helpers.ledger.table import Ledger, load
