"""Runs the notifier: `python -m banksman_notifier`."""

from __future__ import annotations

import sys

from banksman_notifier.app import main

sys.exit(main())
