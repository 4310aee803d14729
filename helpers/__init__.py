"""The workbook's library: rules, decoders, tasks, statistics, figures."""

import os

# Threads that wait for each other should not spin for long: where another program takes a core, a
# small model's forward would otherwise be slower by an order of magnitude. OpenMP reads this when
# torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
