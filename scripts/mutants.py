"""Takes each defence away in turn, in a copy of the tree, and demands that its tests notice.

    make mutants            every defence of scripts/defences.py
    make mutants SHORT=1    the vital ones
    make mutants ONLY=word  those whose name has this word

A copy has an environment of its own, which finds the copy's modules before those of the tree, also in the processes
that tests start. All the tests are run once with nothing taken away: they must pass. Exit 1 when a defence can be taken
away unnoticed, or when its text is not where the table says: it has moved, and the table must follow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parent))
from defences import DEFENCES, Defence

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("shared", *(f"services/{name}" for name in ("agent_worker", "approval_gateway", "notifier")))
PACKAGES = ("banksman", "banksman_worker", "banksman_gateway", "banksman_notifier")
LANES = 2
LONGEST_SECONDS = 300
"""So long may the tests of one defence take, and six times as long those of all together."""

out = sys.stdout.write


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutant."""

    defence: Defence
    caught: bool
    seconds: float
    said: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A copy of the tree with an environment of its own."""

    tree: Path
    python: Path

    @classmethod
    def make(cls, place: Path) -> Lane:
        """The tree as it stands, with what is not committed yet."""
        tree = place / "tree"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        venv.create(place / "env", symlinks=True)
        python = place / "env" / "bin" / "python"
        site = Path(sysconfig.get_path("purelib", vars={"base": str(place / "env"), "platbase": str(place / "env")}))
        examples = sorted(path for path in (tree / "examples").iterdir() if path.is_dir())
        paths = [*(tree / root for root in ROOTS), *examples, Path(sysconfig.get_path("purelib"))]
        (site / "tree.pth").write_text("".join(f"{path}\n" for path in paths))
        lane = cls(tree, python)
        lane.must_import_itself()
        return lane

    def must_import_itself(self) -> None:
        """Stop when a module would come from the tree instead of from this copy."""
        names = ", ".join(PACKAGES)
        code = f"import {names}\nfor module in ({names}): print(module.__file__)"
        found = subprocess.run(
            [self.python, "-c", code], cwd=self.tree, check=True, capture_output=True, text=True
        ).stdout.split()
        strangers = [path for path in found if not Path(path).resolve().is_relative_to(self.tree.resolve())]
        if strangers or len(found) != len(PACKAGES):
            raise SystemExit(f"The copy would test other modules than its own: {strangers}")

    def test(
        self, nodes: Sequence[str], *options: str, within: float = LONGEST_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run these tests here."""
        command = [self.python, "-m", "pytest", "-q", "--tb=line", "--show-capture=no", "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, *options, *nodes],
            cwd=self.tree,
            env={**os.environ, "BANKSMAN_HYPOTHESIS": "quick", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=within,
        )

    @contextmanager
    def without(self, defence: Defence) -> Generator[None]:
        """Take one defence away from this copy for a while."""
        path = self.tree / defence.file
        text = path.read_text()
        if text.count(defence.old) != 1:
            raise LookupError(f"stands {text.count(defence.old)} times in {defence.file}: it moved, update the table")
        path.write_text(text.replace(defence.old, defence.new))
        try:
            yield
        finally:
            path.write_text(text)


def attack(lane: Lane, defence: Defence) -> Result:
    """Take a defence away and see whether somebody notices: tests that fail, not tests that cannot be run."""
    began = time.monotonic()
    try:
        with lane.without(defence):
            ran = lane.test(defence.tests, "-x", "-n", "0")
        caught, said = ran.returncode == 1, _last(ran.stdout)
    except subprocess.TimeoutExpired:
        caught, said = True, f"hangs for {LONGEST_SECONDS} s"
    except LookupError as error:
        caught, said = False, str(error)
    return Result(defence, caught, time.monotonic() - began, said)


def main() -> int:
    """Print a line for each defence; 1 when one can be taken away unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the vital ones alone")
    parser.add_argument("--only", default="", help="those whose name has this word")
    asked = parser.parse_args()
    chosen = [each for each in DEFENCES if (each.vital or not asked.short) and asked.only in each.name]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="banksman-mutants-") as place:
        lanes: SimpleQueue[Lane] = SimpleQueue()
        made = [Lane.make(Path(place) / str(number)) for number in range(LANES)]
        nodes = sorted({node for each in chosen for node in each.tests})
        whole = made[0].test(nodes, "-n", "2", "--dist", "loadfile", within=6 * LONGEST_SECONDS)
        if whole.returncode:
            out(f"{whole.stdout[-4000:]}\nThe tests must pass while every defence stands.\n")
            return 1
        out(f"{_last(whole.stdout)}, with every defence in place\n")
        for lane in made:
            lanes.put(lane)

        def go(defence: Defence) -> Result:
            lane = lanes.get()
            try:
                return attack(lane, defence)
            finally:
                lanes.put(lane)

        with ThreadPoolExecutor(LANES) as pool:
            results: list[Result] = []
            for result in pool.map(go, chosen):
                results.append(result)
                mark = "caught  " if result.caught else "SURVIVED"
                out(f"{mark} {result.seconds:5.1f} s  {result.defence.name}\n")
                if not result.caught:
                    out(f"         {result.defence.file}: {result.said}\n")
                sys.stdout.flush()
    caught = sum(result.caught for result in results)
    out(f"{caught} of {len(results)} caught, in {time.monotonic() - began:.0f} s\n")
    return int(caught < len(results))


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "it said nothing").strip("= ")


if __name__ == "__main__":
    sys.exit(main())
