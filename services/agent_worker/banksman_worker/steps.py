"""How long one step of a run may take: one answer of the model, or the calls of one turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from banksman.errors import TookTooLong
from banksman_worker.leash import Begins


@asynccontextmanager
async def limited(limit: timedelta) -> AsyncGenerator[Begins]:
    """Cancel the block once a step in it took longer (`TookTooLong`); call the function as each step begins."""
    loop, seconds = asyncio.get_running_loop(), limit.total_seconds()
    step = asyncio.timeout(seconds)
    try:
        async with step:
            yield lambda: step.reschedule(loop.time() + seconds)
    except TimeoutError:
        if not step.expired():
            raise
        raise TookTooLong(
            f"No answer of the model or of a tool came within {seconds:g} seconds (BANKSMAN_STEP_SECONDS)."
        ) from None
