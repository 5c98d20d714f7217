"""Runs the command line: `python -m banksman.cli`."""

from __future__ import annotations

from banksman.cli import main

main()
