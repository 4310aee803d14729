"""Views with sliders: an answer's anatomy, live generation, sweeps over tau and costs, routing."""

from helpers.views.costs import dearer
from helpers.views.live_view import live
from helpers.views.recorded import anatomy, routing
from helpers.views.sweeping import sweep
