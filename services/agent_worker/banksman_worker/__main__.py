"""`python -m banksman_worker`: read the settings, set up the logs, serve."""

from __future__ import annotations

import sys

from banksman import logs, settings
from banksman.errors import BanksmanError


def main() -> int:
    """Run the agent worker; start-up errors are sentences, not tracebacks."""
    try:
        read = settings.read(settings.WorkerSettings)
        logs.configure("agent-worker", form=read.log_format, level=read.log_level)
        from banksman_worker import app  # importing the agent libraries takes a second

        return app.run(read)
    except BanksmanError as error:
        sys.stderr.write(f"banksman agent worker: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
