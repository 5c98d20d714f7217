"""`banksman bench` as a user starts it, small: every figure is there, and the parts add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from banksman.bench.cost import cpu_seconds

SMALL = ("--runs", "20", "--repeat", "1", "--clients", "2", "--parked", "20", "--json")


@pytest.mark.skipif(sys.platform != "linux", reason="CPU times are read from /proc")
def test_it_measures_banksman_beside_the_bare_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "banksman.cli", "bench", *SMALL],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 1 < found["floor_cpu_ms_per_run"] < 500
    assert set(found["cpu_ms_per_run"]) >= {"worker", "gateway", "notifier", "postgres", "valkey"}
    assert found["banksman_over_floor"] > 1
    assert found["runs_per_second"] > 0
    assert set(found["naive"]["cpu_ms_per_run"]) == {"worker", "gateway"}
    assert 0 < found["banksman_over_naive"]["cpu"] < 50
    assert found["naive"]["runs_per_second"] > 0
    for latencies in found["decision_to_tool_started_ms"].values():
        assert 0 < latencies["p50"] <= latencies["p95"] <= latencies["p99"]
    assert set(found["mib_while_parked"]) == {"0", "20"}
    assert all(mib > 1 for part, mib in found["mib_while_parked"]["20"].items() if part != "mail")
    assert found["machine"]["pydantic-ai-slim"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="CPU times are read from /proc")
def test_what_a_process_has_used_includes_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)

    used = cpu_seconds({"me": os.getpid(), "nobody": 2**22 + 1})

    assert used["me"] >= 0.3
    assert used["nobody"] == 0
