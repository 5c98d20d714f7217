"""Logging: one line for each event, as text for people or JSON for machines; ids and states, never content.

What other libraries log, and tracebacks, may quote content: whatever is known as a secret by its form is covered.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure(service: str, *, form: Literal["console", "json"] = "console", level: str = "info") -> None:
    """Send the process's logs to standard error, with the service's name on every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # Rich would print the locals of every frame, which hold content, and take seconds for it.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.contextvars.bind_contextvars(service=service)


def _without_secrets(
    logger: structlog.typing.WrappedLogger, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    from banksman import masks

    del logger, method
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = masks.conceal(value)
        elif name == "error" or isinstance(value, BaseException):
            event[name] = masks.conceal(str(value))
    return event


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    return structlog.stdlib.get_logger(name)
