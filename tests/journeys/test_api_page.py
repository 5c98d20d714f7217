"""The story that docs/api.md tells by curl alone, run as it stands there, and its way to check a decision."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from banksman.signing import Signer
from tests.journeys.stacks import ROOT, Stack, environ

PAGE = (ROOT / "docs" / "api.md").read_text()


def block(after: str, language: str) -> str:
    """The first block of code in this language after these words."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.partition(after)[2], re.MULTILINE | re.DOTALL)[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's story needs curl")
def test_the_walk_through_carries_a_run_to_its_end_and_its_decision_can_be_checked(calm: Stack, tmp_path: Path) -> None:
    secrets = json.loads((calm.data / "secrets.json").read_text())
    (tmp_path / "check_decision.py").write_text(block("## Check a decision yourself", "python"))
    script = block("<!-- walk-through -->", "sh") + block('print("genuine:"', "sh")

    told = subprocess.run(
        ["sh", "-eu"],
        input=script.replace("python3", sys.executable),
        cwd=tmp_path,
        env=environ(calm.data, BANKSMAN_VERIFY_KEYS=Signer.read(secrets["signing_key"]).public()),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert told.returncode == 0, told.stderr
    assert '\n"state":"approved"\n"state":"denied"\nevent: run.submitted\n' in told.stdout
    assert "\nevent: run.finished\nevent: over\n" in told.stdout
    assert "I did not run it: Not on this machine." in told.stdout
    assert "#!/bin/sh\n# Archives /data" in told.stdout
    genuine = json.loads(told.stdout.rpartition("genuine: ")[2])
    assert (genuine["verdict"], genuine["reason"]) == ("denied", "Not on this machine.")
