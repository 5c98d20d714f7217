"""`python -m banksman_gateway`: serves until SIGTERM or SIGINT, then lets streams end and answers what it has begun."""

from __future__ import annotations

import os
import sys
from types import FrameType

import uvicorn

from banksman import collecting, logs, settings, tracing
from banksman.errors import BanksmanError
from banksman_gateway import app, parts
from banksman_gateway.pulse import Pulse


class Server(uvicorn.Server):
    """uvicorn, which waits for answers to end before it stops; event streams only end when they are told."""

    def __init__(self, config: uvicorn.Config, pulse: Pulse) -> None:
        super().__init__(config)
        self._pulse = pulse

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._pulse.end()
        super().handle_exit(sig, frame)


def main() -> int:
    try:
        found = settings.read(settings.GatewaySettings)
        logs.configure("gateway", form=found.log_format, level=found.log_level)
        tracing.configure("banksman-gateway", os.environ)
        made = app.create(found)
    except BanksmanError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    config = uvicorn.Config(
        made,
        host=found.host,
        port=found.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    collecting.spare_what_is_loaded()
    Server(config, parts.of(made).pulse).run()
    tracing.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
