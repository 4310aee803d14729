"""How many threads this process may use: what the machine allows it, not what the machine has."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def allowed_threads(cores):
    """The least of `cores`, the processors this process may run on, and its share of their time."""
    limits = [cores, quota()]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    return max(1, int(min(limits)))


def quota():
    """Processors' worth of time that the control group grants (inf where it sets no limit).

    A group is limited by its own cpu.max and by those above it (Linux, cgroup-v2.rst, "CPU"); the
    older layout has cpu.cfs_quota_us and cpu.cfs_period_us, -1 for none. A container often sees its
    own group as the root, so that root is looked at as well.
    """
    granted = [float("inf")]
    for group in _groups():
        try:
            if (group / "cpu.max").exists():
                time, period = (group / "cpu.max").read_text().split()
            else:
                time = (group / "cpu.cfs_quota_us").read_text().strip()
                period = (group / "cpu.cfs_period_us").read_text()
        except (OSError, ValueError):
            continue
        if time not in ("max", "-1"):
            granted.append(int(time) / int(period))
    return min(granted)


def _groups():
    """Folders of the control groups that this process is in, with all above them."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # "0::/path" (version 2) or "4:cpu,cpuacct:/path"
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers if controllers else CGROUPS
        folder = root / path.strip("/")
        yield from (f for f in (folder, *folder.parents) if f.is_relative_to(root))
