"""Counts the spine's lines of code (no blank line, comment or docstring) and compares them with the limit."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LIMIT = 3000
ROOT = Path(__file__).parent.parent
LEDGER = ROOT / "shared/banksman/ledger"
WORKER = ROOT / "services/agent_worker/banksman_worker"
# No run passes these on its way: reads for pages, the making of the schema, who asks and whether they asked before,
# which agents there are, batches and how far they are, policy versions, child runs, the words for what a cancelled run
# leaves behind, what is done after a restore, with a stuck run or
# to stop one, who comes and goes, what silence does, and how people
# hear of things, the seal of the audit log, what is counted for whoever watches, and how long things are kept.
ASIDE = {
    LEDGER / name
    for name in (
        *(
            "views.py",
            "lists.py",
            "inbox.py",
            "groups.py",
            "insights.py",
            "migrate.py",
            "keys.py",
            "answers.py",
            "families.py",
        ),
        *("preferences.py", "gathering.py", "endpoints.py", "outbox.py", "telling.py"),
        *("agents.py", "aftermath.py", "rescue.py", "stops.py", "staff.py", "sign_ins.py", "restore.py", "batches.py"),
        *("silence.py", "roster.py", "policies.py", "rehearsal.py", "grants.py"),
        *(
            "absences.py",
            "withdrawals.py",
            "lookings.py",
            "remarks.py",
            "lasting.py",
            "progress.py",
            "caps.py",
            "results.py",
        ),
        *("seals.py", "trail.py", "resealing.py", "gauges.py", "retention.py", "erasure.py", "searching.py"),
    )
}
SPINE = [
    *sorted(set(LEDGER.glob("*.py")) - ASIDE),
    *(ROOT / "shared/banksman" / name for name in ("wire.py", "digest.py", "links.py")),
    *(
        WORKER / name
        for name in ("gate.py", "operands.py", "journal.py", "segment.py", "parts.py", "resuming.py", "ending.py")
    ),
    ROOT / "services/approval_gateway/banksman_gateway/decide.py",
    ROOT / "services/approval_gateway/banksman_gateway/voters.py",
    ROOT / "shared/banksman/quorum.py",
    ROOT / "services/notifier/banksman_notifier/deliver.py",
]


def code_lines(path: Path) -> int:
    """Lines of a file that are neither blank, comment nor docstring."""
    text = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#") and number not in prose
    )


def main() -> int:
    """Print the count; 1 when it is over the limit, with the lines of each file."""
    counted = {path: code_lines(path) for path in SPINE}
    total = sum(counted.values())
    sys.stdout.write(f"spine: {total} lines of code of at most {LIMIT}\n")
    if total <= LIMIT:
        return 0
    for path, lines in counted.items():
        sys.stdout.write(f"{lines:6} {path.relative_to(ROOT)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
