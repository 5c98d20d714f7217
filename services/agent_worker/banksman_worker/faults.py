"""What an error of a segment means: whether another attempt may fare better, and what people read about it."""

from __future__ import annotations

from pydantic_ai.exceptions import FallbackExceptionGroup, ModelAPIError, ModelHTTPError, ModelRequestRejectedError

from banksman.errors import BanksmanError, Unavailable


def may_pass(error: BaseException) -> bool:
    """Whether another attempt may fare better. What a model provider rejects, it rejects again."""
    if isinstance(error, FallbackExceptionGroup):
        return any(map(may_pass, error.exceptions))
    if isinstance(error, ModelRequestRejectedError):
        return False
    return isinstance(error, (Unavailable, ModelAPIError, ConnectionError, TimeoutError))


def in_words(error: BaseException) -> str:
    """The error as a person reads it."""
    if isinstance(error, FallbackExceptionGroup):
        return " ".join(map(in_words, error.exceptions))
    if isinstance(error, ModelHTTPError):
        return f"The provider of the model {error.model_name!r} answered HTTP {error.status_code}: {error.body}"
    if isinstance(error, ModelAPIError):
        return f"The provider of the model {error.model_name!r} cannot be used: {error}"
    return str(error) if isinstance(error, BanksmanError) else f"{type(error).__name__}: {error}"
