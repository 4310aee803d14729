"""Views with sliders: an answer's anatomy, live generation, a sweep over tau, a routed answer."""

from helpers.views.live_view import live
from helpers.views.recorded import anatomy, routing, sweep
