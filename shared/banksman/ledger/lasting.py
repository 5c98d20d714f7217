"""Lasting: until when a request or a notice counts, as statements ask it.

One whose silence means `extend` counts past its deadline as well: the sweep moves that on, and until it comes nobody is
told that the request has expired.
"""

from __future__ import annotations

from typing import LiteralString

REQUEST: LiteralString = (
    "(requests.expires_at > clock_timestamp() OR requests.requirement ->> 'on_expiry' IS NOT DISTINCT FROM 'extend')"
)
NOTICE: LiteralString = """(notices.expires_at > clock_timestamp() OR EXISTS (
              SELECT
              FROM requests AS extending
              WHERE extending.id = notices.request_id AND extending.state = 'open'
                AND extending.revision = notices.revision AND extending.requirement ->> 'on_expiry' = 'extend'))"""
