"""CPU seconds of processes and their children, as Linux counts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from banksman.errors import ConfigurationError


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """What each process has used so far, with everything below it, living or reaped."""
    proc = Path("/proc")
    if not proc.is_dir():
        raise ConfigurationError("`banksman bench` reads CPU times from /proc, which only Linux has.")
    ticks = os.sysconf("SC_CLK_TCK")
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        pid = int(entry.name)
        used[pid] = sum(map(int, fields[11:15]))
        children.setdefault(int(fields[1]), []).append(pid)
    return {name: _tree(pid, used, children) / ticks for name, pid in pids.items()}


def _tree(pid: int, used: Mapping[int, int], children: Mapping[int, list[int]]) -> int:
    below = children.get(pid, [])
    return used.get(pid, 0) + sum(_tree(child, used, children) for child in below)
