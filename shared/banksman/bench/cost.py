"""CPU seconds and memory of processes and their children, as Linux counts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from banksman.errors import ConfigurationError

_PROC = Path("/proc")


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """What each process has used so far, with everything below it, living or reaped."""
    ticks = os.sysconf("SC_CLK_TCK")
    stats = _stats()
    return {
        name: sum(sum(map(int, stats[one][11:15])) for one in _tree(pid, stats)) / ticks for name, pid in pids.items()
    }


def by_part(pids: Mapping[str, int]) -> dict[str, float]:
    """The same by part: several workers are one part."""
    parts: dict[str, float] = {}
    for name, seconds in cpu_seconds(pids).items():
        part = name.partition("-")[0]
        parts[part] = parts.get(part, 0.0) + seconds
    return parts


def resident_mib(pids: Mapping[str, int]) -> dict[str, float]:
    """What each process holds in memory, with everything below it; what several share counts in parts (PSS)."""
    stats = _stats()
    return {name: sum(_shares(one) for one in _tree(pid, stats)) / 1024 for name, pid in pids.items()}


def _stats() -> dict[int, list[str]]:
    """The fields after its name of every process that lives (proc_pid_stat(5))."""
    if not _PROC.is_dir():
        raise ConfigurationError("`banksman bench` reads what processes use from /proc, which only Linux has.")
    found: dict[int, list[str]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended while we looked
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
    return found


def _tree(pid: int, stats: Mapping[int, list[str]]) -> list[int]:
    if pid not in stats:
        return []
    return [pid, *(below for one, fields in stats.items() if int(fields[1]) == pid for below in _tree(one, stats))]


def _shares(pid: int) -> int:
    """KiB of a process, by its line `Pss:`."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
