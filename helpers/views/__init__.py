"""Views with sliders: an answer's anatomy, live generation, sweeps over tau and costs, routing."""

from helpers.ledger import Ledger
from helpers.views import recorded, sweeping
from helpers.views.costs import dearer
from helpers.views.live_view import live
from helpers.views.recorded import anatomy, routing


def sweep(*given, **named):
    """views.sweeping.sweep of a ledger, or views.recorded.sweep of lines over tau."""
    of_ledger = isinstance(next(iter(given), None), Ledger)
    return (sweeping.sweep if of_ledger else recorded.sweep)(*given, **named)
