"""Apprise's URLs as people may give them: which services are reached, and which URLs would reach something else.

A person gives a URL of their own, and the notifier calls it. So only services that are called over HTTPS count (the
notifier's guard sees each of their connections), and no URL may make the notifier read a file of its machine, as the
parameters for templates and keys would.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from banksman.errors import InvalidInput

MOST = 5
_URL = re.compile(r"([a-z][a-z0-9]{1,19})://[!-~]{1,500}")
# Other protocols, this machine's own desktop and log, and mail, which is a channel of its own.
_ELSEWHERE = frozenset(
    {
        *(
            "amqp",
            "amqps",
            "aprs",
            "blink1",
            "dbus",
            "deltachat",
            "deltachats",
            "file",
            "gio",
            "glib",
            "gnome",
            "growl",
        ),
        *("irc", "ircs", "kde", "macosx", "mailto", "mailtos", "mqtt", "mqtts", "nostr", "qt", "rsyslog", "smpp"),
        *("smpps", "syslog", "vapid", "windows", "xmpp", "xmpps"),
    }
)
_READS_FILES = frozenset({"template", "keyfile", "subfile"})


def checked(urls: list[str]) -> tuple[str, ...]:
    """The URLs, each once; `InvalidInput` says which one cannot be used, by its number and service: it is a secret."""
    if len(urls) > MOST:
        raise InvalidInput(f"A person may give {MOST} URLs of other services.")
    for number, url in enumerate(urls, 1):
        match = _URL.fullmatch(url)
        if match is None:
            raise InvalidInput(
                f"URL {number} is not like slack://… or tgram://…: it takes a service of Apprise's and printable ASCII."
            )
        if found := sorted(set(url) & set(";#\\")):
            raise InvalidInput(f"URL {number} holds {found[0]!r}, which programs read differently. Leave it out.")
        if match[1] in _ELSEWHERE:
            raise InvalidInput(f"URL {number}: {match[1]} is not called over HTTPS, so it is not used here.")
        try:
            named = {name.strip().lower() for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)}
        except ValueError:
            raise InvalidInput(f"URL {number} cannot be read.") from None
        if found := sorted(named & _READS_FILES):
            raise InvalidInput(f"URL {number}: the parameter {found[0]} would read a file of the notifier's machine.")
    return tuple(dict.fromkeys(urls))


def masked(url: str) -> str:
    """What of a URL may be shown: its service."""
    return f"{url.partition('://')[0]}://…"
