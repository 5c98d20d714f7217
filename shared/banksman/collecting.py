"""Collecting garbage less: agents and web frameworks make cycles by the thousand, and load objects by the 100,000."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 5000, 20, 50


def spare_what_is_loaded() -> None:
    """Whatever the process has loaded so far is never looked through again, and the rest less often than by default."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
