"""Batches from a terminal or a script."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from banksman.cli import watching
from banksman.client import Client
from banksman.shapes import Batch
from tests.cli.conftest import Banksman


def test_a_file_of_runs_is_submitted_looked_at_and_stopped(banksman: Banksman, tmp_path: Path) -> None:
    file = tmp_path / "runs.ndjson"
    file.write_text("".join(json.dumps({"agent": "plain", "prompt": f"Do {n}."}) + "\n" for n in range(3)))

    submitted = banksman("batch", "submit", str(file), "--name", "night")
    batch_id = submitted.stdout.strip()
    shown = banksman("batch", "show", batch_id)
    cancelled = banksman("batch", "cancel", batch_id, "--json")

    assert submitted.returncode == 0, submitted.stderr
    assert batch_id.startswith("bat_")
    assert "night" in shown.stdout
    assert "queued     3" in shown.stdout
    assert json.loads(cancelled.stdout)["runs"]["cancelled"] == 3


def test_a_batch_is_paused_resumed_tried_again_and_its_results_are_written(banksman: Banksman, tmp_path: Path) -> None:
    file, out = tmp_path / "runs.ndjson", tmp_path / "out.csv"
    file.write_text('{"agent": "plain", "prompt": "x", "key": "=1"}\n{"agent": "plane", "prompt": "x"}\n')

    submitted = banksman("batch", "submit", str(file), "--skip-faulty")
    batch_id = submitted.stdout.strip()
    moved = [json.loads(banksman("batch", move, batch_id, "--json").stdout) for move in ("pause", "resume", "retry")]
    lines = banksman("batch", "results", batch_id)
    written = banksman("batch", "results", batch_id, "--csv", "-o", str(out))

    assert submitted.returncode == 1
    assert "skipped line 2: There is no agent 'plane'" in submitted.stderr
    assert [found["paused_at"] is None for found in moved] == [False, True, True]
    assert json.loads(lines.stdout)["key"] == "=1"
    assert (written.returncode, "1,'=1,run_" in out.read_text()) == (0, True)


def test_results_that_cannot_be_had_leave_the_file_as_it_was(banksman: Banksman, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    kept = folder / "orders.ndjson"
    kept.write_text("of yesterday\n")
    kept.chmod(0o600)
    unknown = "bat_" + "0" * 32

    refused = banksman("batch", "results", unknown, "-o", str(kept))
    after = [path.read_text() for path in folder.iterdir()]
    nowhere = banksman("batch", "results", unknown, "-o", str(folder / "none" / "x"))
    a_folder = banksman("batch", "results", unknown, "-o", str(folder))
    file = tmp_path / "runs.ndjson"
    file.write_text('{"agent": "plain", "prompt": "x", "key": "k"}\n')
    batch_id = banksman("batch", "submit", str(file)).stdout.strip()
    had = banksman("batch", "results", batch_id, "-o", str(kept))

    assert (refused.returncode, after) == (4, ["of yesterday\n"])
    assert [nowhere.returncode, a_folder.returncode] == [2, 2]
    assert f"{folder / 'none' / 'x'} cannot be written: No such file or directory." in nowhere.stderr
    assert had.returncode == 0, had.stderr
    assert [json.loads(path.read_text())["key"] for path in folder.iterdir()] == ["k"]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_what_a_batch_has_used_is_said(banksman: Banksman, monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"requests": 2400, "input_tokens": 70, "output_tokens": 0, "tool_calls": 3, "cost": "0.25"}
    now = datetime(2026, 11, 23, tzinfo=UTC)
    batch = Batch(id="bat_x", total=1, runs={"finished": 1}, created_at=now, usage=used)

    def one(*_: object) -> Batch:
        return batch

    monkeypatch.setattr(Client, "batch", one)
    said = banksman("batch", "show", "bat_x").stdout

    assert "used         2,400 model requests, 70 tokens in, 3 tool calls\n" in said
    assert "cost         0.25 USD, as the agent library reckons it\n" in said


def test_faults_of_a_file_are_named_by_line(banksman: Banksman, tmp_path: Path) -> None:
    file = tmp_path / "runs.ndjson"
    file.write_text('{"agent": "plain", "prompt": "x"}\n{"agent": "plane", "prompt": "x"}\n')

    refused = banksman("batch", "submit", str(file))

    assert refused.returncode == 2
    assert "line 2: There is no agent 'plane'" in refused.stderr
    assert banksman("batch", "submit", str(tmp_path / "none")).returncode == 2


def test_the_bar_says_what_the_runs_wait_for() -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    batch = Batch(
        id="bat_x",
        total=10,
        runs={"queued": 4, "waiting": 2, "finished": 4},
        created_at=now,
        waits_for=["security"],
        open_requests=2,
        per_minute=1.5,
        expected_at=now + timedelta(minutes=125),
    )

    said = watching.says(batch, now)

    assert said == (
        "2 waiting, 4 finished, 2 to decide, waiting for reviewers (security), 1.5 a minute, about 2 h 5 min left"
    )
