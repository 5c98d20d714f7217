"""Detectors: where in a text a secret stands that is known by its form: a key with a prefix, a password in a URL.

They are few and precise. Nothing is found by how random it looks: hashes, ids and file names look random too, and who
sees masks everywhere stops looking. What only its author can know to be secret is named by its author (`masks`).

A detector may hide no more than a secret. What it finds is one word of letters, digits and a few signs, without blanks
and without anything that a shell acts on, or a private key whose bytes are those of one. So a command cannot be
dressed up as a password: what is around the word stays to be read. What begins as a path or the name of a file does
(`@ / ~ .`) is not taken for a password, nor is what has blanks or such signs because of the name of its field.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from banksman import letters

LONGEST = 128
"""So many characters has a value that is taken for a secret because of the name in front of it."""


@dataclass(frozen=True, slots=True)
class Found:
    """A secret in a text: where it begins and ends, and what it is."""

    start: int
    end: int
    what: str


@dataclass(frozen=True, slots=True)
class _Detector:
    """One form. The pattern's group `s` is the secret; it is looked for only where one of `near` is in the text."""

    what: str
    near: Sequence[str]
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None


def find(text: str) -> Sequence[Found]:
    """Every secret in a text, in order, none within another; also one that is cut up by characters nobody sees."""
    if len(text) < _SHORTEST:
        return ()
    found = list(_find(text))
    if not text.isascii():
        places = [place for place, letter in enumerate(text) if not letters.is_ignorable(letter)]
        if len(places) < len(text):
            plain = "".join(text[place] for place in places)
            found += (Found(places[one.start], places[one.end - 1] + 1, one.what) for one in _find(plain))
    return apart(found)


def of_name(name: str, value: str) -> str | None:
    """What a value is, where the name of its field says that it is secret; None where it does not.

    A value that could be a command, by its blanks or the signs in it, is not covered for its name alone.
    """
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-. ]", "_", name).lower()
    scheme = re.match(r"(?:Bearer|Basic|Token) ", value)
    word = value[scheme.end() :] if scheme else value
    if not 0 < len(value) <= LONGEST or _ACTS.search(word) or _is_placeholder(value):
        return None
    if match := _SURE.search(plain):
        return match[1].replace("_", " ")
    if (match := _PERHAPS.search(plain)) and len(word) >= _LONG and _mixed(value):
        return match[1].replace("_", " ")
    return None


def is_card(text: str) -> bool:
    """Whether this is the number of a payment card: a network's prefix and length, its groups, and the Luhn digit."""
    digits = re.sub("[ -]", "", text)
    sums = [
        int(digit) if place % 2 == 0 else sum(divmod(2 * int(digit), 10)) for place, digit in enumerate(digits[::-1])
    ]
    return (
        _CARD.fullmatch(digits) is not None
        and _GROUPS.fullmatch(text) is not None
        and sum(sums) % 10 == 0
        and len(set(digits)) > 1
    )


def _find(text: str) -> Iterator[Found]:
    lower = text.lower()
    for detector in _DETECTORS:
        if not any(word in lower for word in detector.near):
            continue
        for match in detector.pattern.finditer(text):
            if match["s"] and (detector.check is None or detector.check(match["s"])):
                yield Found(*match.span("s"), detector.what)
    if sum(map(lower.count, "0123456789")) >= _SHORTEST_CARD:
        for match in _DIGITS.finditer(text):
            if is_card(match[0]):
                yield Found(*match.span(), "card number")


def apart(found: Sequence[Found]) -> Sequence[Found]:
    """The same in their order, what overlaps as one; it is what the first of them is."""
    merged: list[Found] = []
    for one in sorted(found, key=_place):
        if merged and one.start < merged[-1].end:
            last = merged.pop()
            merged.append(Found(last.start, max(last.end, one.end), last.what))
        else:
            merged.append(one)
    return merged


def _place(found: Found) -> tuple[int, int]:
    return found.start, -found.end


def _mixed(text: str) -> bool:
    """Letters and digits: words alone are no key."""
    return any(letter.isdigit() for letter in text) and any(letter.isalpha() for letter in text)


def _is_placeholder(text: str) -> bool:
    return _PLACEHOLDER.fullmatch(text) is not None


def _is_value(text: str) -> bool:
    """A value in a text that may be a program: neither a place for one nor the name of something that holds one."""
    return not _is_placeholder(text) and (_mixed(text) or re.search(r"[!@#%^*~]", text) is not None)


def _is_password(text: str) -> bool:
    return not _is_placeholder(text)


def _is_jwt(text: str) -> bool:
    head = text.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, RecursionError, binascii.Error):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_private_key(text: str) -> bool:
    """Whether the block holds a key's bytes, and not lines of something else."""
    lines = [line.strip() for line in text.replace("\\n", "\n").replace("\\r", "").split("\n")[1:-1]]
    lines = [line for line in lines if line and ": " not in line]
    if not lines or any(len(line) not in (64, 70, 76) for line in lines[:-1]):
        return False
    try:
        body = base64.b64decode("".join(lines), validate=True)
    except (ValueError, binascii.Error):
        return False
    # An ASN.1 sequence, or what OpenSSH begins with; one that is encrypted by headers is as random as its key.
    return body[:1] == b"\x30" or body.startswith(b"openssh-key-v1") or "Proc-Type: 4,ENCRYPTED" in text


_PLACEHOLDER = re.compile(
    r"\$.*|<.*>|\{.*\}|%.*%|\*+|x+|\.+|-+|\[?(?:redacted|hidden|masked|secret|password|passwd|pass|pwd|token|key|none|null"
    r"|true|false|undefined|required|optional|changeme|your[-_ ].*|example)\]?",
    re.IGNORECASE | re.DOTALL,
)
_SURE = re.compile(
    r"(?:^|_)(password|passwd|passphrase|pwd|client_?secret|api_?key|secret_?key|secret_access_key|private_?key"
    r"|access_?token|auth_?token|refresh_?token|bearer_?token|session_?token)$"
)
_PERHAPS = re.compile(r"(?:^|_)(secret|token|authorization|cookie|credentials?|access_key|connection_string|dsn)$")

# Blanks, control letters, and what a shell acts on.
_ACTS = re.compile(r"[\s\x00-\x1f\x7f;|&$`()<>{}'\"\\]")
_LONG = 16

_B, _E = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9_-])"


def _key(what: str, near: str | Sequence[str], pattern: str, *, mixed: bool = True) -> _Detector:
    """A key that is known by its prefix."""
    words = (near,) if isinstance(near, str) else near
    return _Detector(what, words, re.compile(f"{_B}(?P<s>{pattern}){_E}"), _mixed if mixed else None)


_WORDS = (
    r"(?:password|passwd|passphrase|pwd|secret|api[_-]?key|(?:access|auth|refresh|bearer|session)[_-]?token"
    r"|secret[_-]?(?:access[_-]?)?key|private[_-]?key)"
)
_NAMED = rf"(?i:[A-Za-z0-9_-]{{0,40}}?{_WORDS})"
_NEAR_WORDS = ("pass", "pwd", "secret", "key", "token")
# Of no word here does a shell, a program or a page make anything but text.
_TEXT = r"[A-Za-z0-9_\-./+=~!@#%^*:?,]"
# A file's name or a path is no secret: `curl -F password=@/etc/shadow`.
_NO_FILE = r"(?![@/~.=:])"

_DETECTORS = (
    _key("GitHub token", ("gh", "github_pat_"), r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255}"),
    _key("GitLab token", "glpat-", r"glpat-[A-Za-z0-9_-]{20,255}"),
    _key("AWS access key", ("akia", "asia"), r"(?:AKIA|ASIA)[A-Z2-7]{16}", mixed=False),
    _key("Google key", ("aiza", "ya29."), r"AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,1024}"),
    _key("Slack token", ("xox", "xapp-"), r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,255}"),
    _key("API key", "sk-", r"sk-(?:[a-z0-9]{2,12}-)?[A-Za-z0-9_-]{20,255}"),
    _key("Stripe key", ("sk_", "rk_"), r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
    _key("webhook secret", "whsec_", r"whsec_[A-Za-z0-9+/]{24,255}={0,2}", mixed=False),
    _key("npm token", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _key("PyPI token", "pypi-", r"pypi-AgEI[A-Za-z0-9_-]{40,1024}"),
    _key("Hugging Face token", "hf_", r"hf_[A-Za-z0-9]{30,64}", mixed=False),
    _key("SendGrid key", "sg.", r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}"),
    _key("Banksman key", "bk_", r"bk_(?:key|tok)_[0-9a-z]{12}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}"),
    _Detector(
        "JSON Web Token",
        ("eyj",),
        re.compile(
            rf"{_B}(?P<s>eyJ[A-Za-z0-9_-]{{8,4096}}\.eyJ[A-Za-z0-9_-]{{2,65536}}\.[A-Za-z0-9_-]{{16,4096}}){_E}"
        ),
        _is_jwt,
    ),
    _Detector(
        "private key",
        ("private key-----",),
        re.compile(
            r"(?P<s>-----BEGIN ([A-Z0-9 ]{0,20}PRIVATE KEY)-----(?:\r?\n|\\n|\\r\\n)"
            r"(?:[A-Za-z0-9+/=:,\- ]{0,100}(?:\r?\n|\\n|\\r\\n)){1,200}-----END \2-----)"
        ),
        _is_private_key,
    ),
    _Detector(
        "password in a URL",
        ("://",),
        re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s/?#@:'\"`]{0,100}:(?P<s>[^\s/?#@'\"`$();|&<>\\]{1,256})@"),
        _is_password,
    ),
    _Detector(
        "Slack address",
        ("hooks.slack.com/",),
        re.compile(r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<s>[A-Za-z0-9/]{20,200})"),
    ),
    _Detector(
        "secret in a URL",
        (*_NEAR_WORDS, "sig"),
        re.compile(
            rf"[?&](?:{_WORDS}|token|key|sig|signature|X-Amz-Signature)=(?P<s>[A-Za-z0-9_\-.~%+/]{{12,1024}})",
            re.IGNORECASE,
        ),
        _is_value,
    ),
    _Detector(
        "credential of a request",
        ("authorization",),
        re.compile(
            r"(?i:authorization(?:\\?[\"'])?\s{0,3}[:=,]\s{0,3}(?:\\?[\"'])?(?:Bearer|Basic|Token)) +"
            rf"{_NO_FILE}(?P<s>[A-Za-z0-9_\-.~+/]{{16,4096}}={{0,2}})(?![A-Za-z0-9_\-.~+/=])"
        ),
        _mixed,
    ),
    _Detector(
        "password",
        _NEAR_WORDS,
        re.compile(
            rf"(?<![A-Za-z0-9_-]){_NAMED}[\"']?\s{{0,3}}[=:]\s{{0,3}}([\"']){_NO_FILE}(?P<s>{_TEXT}{{6,{LONGEST}}})\1"
        ),
        _is_password,
    ),
    _Detector(
        "password",
        _NEAR_WORDS,
        re.compile(
            rf"(?<![A-Za-z0-9_-])(?:{_NAMED}[=:] ?|--{_NAMED} ){_NO_FILE}"
            rf"(?P<s>{_TEXT}{{6,{LONGEST}}})(?![A-Za-z0-9_(\[{{])"
        ),
        _is_value,
    ),
)
_SHORTEST, _SHORTEST_CARD = 10, 13
_DIGITS = re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])(?!\.\d)")
_CARD = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|5\d\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}"
)
_GROUPS = re.compile(r"\d+|\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5}")
