"""A system administrator's assistant: writes scripts and runs them, and asks a person before both.

The agent of pydantic-deep's human-in-the-loop page, on today's libraries. Its model is a script, so
that it works without a key; `BANKSMAN_DEMO_MODEL=openai:gpt-4.1` puts a real one in its place.
"""

from __future__ import annotations

from banksman_worker.deep import deep_agent
from banksman_worker.scripted import Call, Return, Seen, scripted_model

PROMPT = "Create a backup script at /backup.sh that archives the /data directory"

_SCRIPT = """\
#!/bin/sh
# Archives /data into /backups, under a name that carries the time.
# The workspace is the directory that holds this script.
set -eu

cd "$(dirname "$0")"
mkdir -p backups
archive="backups/data-$(date -u +%Y%m%dT%H%M%SZ).tar.gz"
tar -czf "$archive" data

echo "Wrote /$archive with:"
tar -tzf "$archive"
"""
_COMMAND = "mkdir -p data && uname -sr > data/system.txt && sh backup.sh"


def _write_and_try(seen: Seen) -> list[Call]:
    del seen
    return [
        Call("write_file", {"path": "/backup.sh", "content": _SCRIPT}),
        Call("execute", {"command": _COMMAND, "timeout": 60}),
    ]


def _answer(seen: Seen) -> str:
    return f"{_about_the_script(seen.last('write_file'))}\n\n{_about_the_trial(seen.last('execute'))}"


def _about_the_script(written: Return | None) -> str:
    if written is None or written.outcome != "success" or written.text.startswith("Error"):
        return f"There is no backup script: {written.text if written else 'nothing was written.'}"
    return (
        f"I've created the backup script ({written.text}). The script:\n"
        "- Archives the /data directory\n"
        "- Creates a timestamped backup file\n"
        "- Uses gzip compression"
    )


def _about_the_trial(tried: Return | None) -> str:
    if tried is None or tried.outcome != "success":
        return f"I did not run it: {tried.text if tried else 'there was nothing to run.'}"
    if tried.text.startswith(("Error", "Command failed")):
        return f"I ran it, and it did not work:\n{tried.text}"
    return f"I ran it once:\n{tried.text}"


agents = {
    "sysadmin": deep_agent(
        model=scripted_model(_write_and_try, _answer, name="scripted-sysadmin"),
        instructions="You are a system administrator assistant.",
        interrupt_on={
            "write_file": True,  # Ask before a file is written,
            "edit_file": True,  # before one is changed,
            "execute": True,  # and before a command runs.
        },
    )
}
