"""One function per figure, in the house style: each takes intervals, lists and small tables.

Each returns a Figure. Call them through `draw`, which keeps what a figure was drawn from.
"""

from helpers.plots.across_tasks import by_task, entropy_by_task
from helpers.plots.blocks import (
    aggressive,
    first_order,
    gain_shares,
    over_costs,
    policies,
    wasted,
)
from helpers.plots.costs import dearer
from helpers.plots.damage import FATES, fates, rescue_cost, rescue_harm
from helpers.plots.deploying import advice
from helpers.plots.drawing import draw, redraw
from helpers.plots.entropy import answer_entropy, divergence_curve, signal_roc
from helpers.plots.first_picture import two_rules
from helpers.plots.selective import selective_curve
from helpers.plots.speakers import confusion, routers, strip
from helpers.plots.speed import PANELS, benchmark, gamma_speed, growth, race
from helpers.plots.threshold import CONTROLS, control_curves, matched, pareto_front, tau_lines
