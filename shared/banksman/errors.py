"""Every error of Banksman, in one tree.

    BanksmanError
    ├── ConfigurationError      a process cannot start: a setting, an agents module, a key
    │   └── Ungateable          an agent brings a tool that no gate can hold
    ├── InvalidInput            the caller sent something that cannot be used
    ├── NotFound                no such run, request, person or key (or not yours to see)
    │   └── Gone                it was there: it was purged, or its content was erased
    ├── NotAllowed              you are known, and may not do this
    ├── NotSignedIn             no credential, or one that no longer counts
    ├── Conflict                the world moved on; `current` says to where
    │   ├── AlreadyDecided      somebody or something settled the request first
    │   ├── AlreadyVoted        one person has one vote for each revision
    │   └── Changed             what was shown is no longer what is asked
    ├── Unavailable             PostgreSQL cannot be reached
    │   ├── Crossed             two transactions waited for each other, and this one was undone: try again
    │   └── NotHere             another process may have what this one lacks: an agent, a key of the vault
    ├── LostLease               another worker may hold this run: drop everything
    └── NotGenuine              a signature, a link or a stored statement does not verify

A leaf exists because some caller does something different for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID


class BanksmanError(Exception):
    """The root of the tree; its text is written for the person who reads it."""


class ConfigurationError(BanksmanError):
    """A process cannot start as configured."""


class Ungateable(ConfigurationError):
    """An agent brings a tool that no gate can hold."""


class InvalidInput(BanksmanError):
    """The caller sent something that cannot be used; nothing was written."""


class NotFound(BanksmanError):
    """There is no such thing, or it is not the caller's to see; `what` is the run, request or batch that was sought."""

    def __init__(self, message: str, what: UUID | None = None) -> None:
        super().__init__(message)
        self.what = what


class Gone(NotFound):
    """It was there: it was purged since, or its content was erased."""


class NotSignedIn(BanksmanError):
    """No credential, or one that no longer counts."""


class NotAllowed(BanksmanError):
    """The caller is known and may not do this."""


class Conflict(BanksmanError):
    """The world moved on before the caller did; `current` says to where."""

    def __init__(self, message: str, current: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.current: Mapping[str, object] = current or {}


class AlreadyDecided(Conflict):
    """Somebody or something settled the request first."""


class AlreadyVoted(Conflict):
    """One person has one vote for each revision."""


class Changed(Conflict):
    """What was shown is no longer what is asked."""


class Unavailable(BanksmanError):
    """PostgreSQL cannot be reached."""


class Crossed(Unavailable):
    """Two transactions waited for each other, and PostgreSQL undid this one. It is no outage: try again."""


class TookTooLong(BanksmanError):
    """A model or a tool gave no answer in the time that a step may take. Another attempt may fare better."""


class NotHere(Unavailable):
    """Another process may have what this one lacks: an agent, or a key that content is sealed with."""


class LostLease(BanksmanError):
    """Another worker may hold this run: whatever was about to be written must be dropped."""


class NotGenuine(BanksmanError):
    """A signature, a link or a stored statement does not verify."""
