"""What an error of a segment means: whether another attempt may fare better, and what people read about it."""

from __future__ import annotations

import traceback
from collections.abc import Collection

from pydantic import ValidationError
from pydantic_ai.exceptions import (
    FallbackExceptionGroup,
    ModelAPIError,
    ModelHTTPError,
    ModelRequestRejectedError,
    ModelRetry,
    UsageLimitExceeded,
)

from banksman import masks
from banksman.errors import BanksmanError, TookTooLong, Unavailable

_MCP = frozenset({"McpError", "MCPError"})
_UNANSWERED = frozenset({408, -32000})
"""Model Context Protocol's codes for a request that timed out and for a connection that was closed."""
_FRAMES = 8
"""So many of the innermost frames does the log name."""


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may fare better. What a model provider rejects, it rejects again."""
    if isinstance(error, FallbackExceptionGroup):
        return any(map(may_pass, error.exceptions))
    if isinstance(error, ModelRequestRejectedError):
        return False
    return isinstance(error, (Unavailable, TookTooLong, ModelAPIError, ConnectionError, TimeoutError))


def gave_up(error: ModelRetry) -> bool:
    """Whether this means that nobody waited for a tool any longer, which may be going on with what it does."""
    cause = error.__cause__
    code = getattr(getattr(cause, "error", None), "code", None) if type(cause).__name__ in _MCP else None
    return isinstance(error.__context__, TimeoutError) or code in _UNANSWERED


def for_the_log(error: BaseException) -> str:
    """What broke and where, without the error's own words where they may quote content: those are kept with the run."""
    if isinstance(error, FallbackExceptionGroup):
        return " ".join(map(for_the_log, error.exceptions))
    if isinstance(error, BanksmanError):
        return masks.conceal(str(error))
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames[::-1])
    code = f" (HTTP {error.status_code})" if isinstance(error, ModelHTTPError) else ""
    return f"{type(error).__name__}{code} in {where or 'no frame'}"


def without_values(error: ValidationError | ModelRetry, known: Collection[str] = ()) -> str:
    """Which of its `known` arguments a tool refused, and the kind of error; the audit log keeps it for good.

    No words of the tool's author, which may quote a value, and no name that only the call has.
    """
    if isinstance(error, ModelRetry):
        return "it asks for others (ModelRetry)"
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    fields = ((str(one["loc"][0]) if one["loc"] else "", one["type"]) for one in wrong)
    return "; ".join(dict.fromkeys(f"{name if name in known else 'the arguments'}: {kind}" for name, kind in fields))


def in_words(error: BaseException) -> str:
    """The error as a person reads it."""
    if isinstance(error, FallbackExceptionGroup):
        return " ".join(map(in_words, error.exceptions))
    if isinstance(error, ModelHTTPError):
        return f"The provider of the model {error.model_name!r} answered HTTP {error.status_code}: {error.body}"
    if isinstance(error, ModelAPIError):
        return f"The provider of the model {error.model_name!r} cannot be used: {error}"
    if isinstance(error, UsageLimitExceeded):
        what = str(error).partition(". ")[0]
        return f"The run has used all that it may: {what}. Its author raises that (usage_limits, where it is listed)."
    return str(error) if isinstance(error, BanksmanError) else f"{type(error).__name__}: {error}"
