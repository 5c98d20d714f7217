"""Writes messages: one folder of templates for each mail, filled with what a mail may say and nothing else.

Arguments never appear. Names that come from far away (a tool's, an agent's, a requester's) are written in a short form
of plain characters, so that no invisible or look-alike letter and no line break travels in a mail. For services that
make links, mentions or type of what they are given, names are shorter still: letters, digits, dashes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from banksman.ids import NoticeId, show
from banksman.ledger import insights
from banksman.records import Line, Matter, ReceiptLine
from banksman.states import Tier
from banksman_notifier.channels import Message
from banksman_notifier.gateway import Link

_LONGEST = 60
_FOREIGN = re.compile(r"[^A-Za-z0-9_.:/@+ -]")
_MARKS = re.compile(r"[^A-Za-z0-9_ ()-]")
_SILENCE = {
    "deny": "If nobody decides by then, the call is not made and the run goes on without it.",
    "stop": "If nobody decides by then, the run ends.",
    "extend": "If nobody decides by then, it goes on waiting.",
}
_SENTENCE = re.compile(r"[^ -~]")
_MOST_LINES = 20

# Jinja's own choice by file name escapes nothing whose ending it does not know, hence the default.
_TEMPLATES = Environment(
    loader=PackageLoader("banksman_notifier", "mails"),
    autoescape=select_autoescape(("html",), ("txt",), default=True),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
)


def of_notice(kind: str, matter: Matter, link: Link) -> Message:
    """The message of a notice that is told by itself."""
    if matter.request_id is None:
        return _write(
            kind,
            matter,
            {
                "code": link.code,
                "deadline": _moment(matter.expires_at),
                "day": f"{matter.created_at.astimezone(UTC):%Y-%m-%d}",
                "votes": sum(line.count for line in matter.receipt),
                "lines": [_receipt_line(line) for line in matter.receipt[:_MOST_LINES]],
                "more": sum(line.count for line in matter.receipt[_MOST_LINES:]),
                "audit_head": matter.audit_head,
            },
            url=link.page,
        )
    assert matter.requirement is not None
    requirement = matter.requirement
    return _write(
        kind,
        matter,
        {
            "kind": matter.kind,
            "tool": plain(matter.tool),
            "agent": plain(matter.agent),
            "requester": plain(matter.requester),
            "tier": requirement.tier,
            "because": _SENTENCE.sub("?", requirement.because)[:300],
            "approvals": requirement.approvals,
            "deadline": _moment(matter.expires_at),
            "silence": _SILENCE.get(requirement.on_expiry, _SILENCE["deny"]),
            "code": link.code if requirement.tier is Tier.LOW else None,
            "request": show("req", matter.request_id),
        },
        url=link.url,
        page=link.page,
    )


def of_summary(matters: Sequence[Matter], name: NoticeId, lines: Sequence[Line], home: str) -> Message:
    """Many notices to one person in one message; `name` stands for exactly these."""
    told = [_told(line) for line in lines[:_MOST_LINES]]
    return _write(
        "summary",
        matters[0],
        {
            "count": sum(line.count for line in lines if not line.remark),
            "remarks": sum(line.count for line in lines if line.remark),
            "lines": told,
            "more": sum(line.count for line in lines[_MOST_LINES:]),
            "deadline": _moment(min(line.expires_at for line in lines)),
        },
        url=f"{home}/",
        name=name,
        written_at=max(matter.created_at for matter in matters),
    )


def plain(name: str) -> str:
    """A name in at most 60 plain characters; every other character shows as a question mark."""
    # No mail program makes a link of it: a name comes from far away.
    text = _FOREIGN.sub("?", name).replace("://", ":??")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def brief(subject: str) -> str:
    """A subject in characters that no service makes a link, a mention or type of; every other is left out."""
    return _MARKS.sub(" ", subject)


def _told(line: Line) -> dict[str, object]:
    batch = None if line.batch_id is None else plain(line.batch or show("bat", line.batch_id))
    return {
        "count": line.count,
        "batch": batch,
        "agent": plain(line.agent),
        "tool": plain(line.tool),
        "kind": line.kind,
        "tier": line.tier,
        "remark": line.remark,
        "deadline": _moment(line.expires_at),
    }


def _receipt_line(line: ReceiptLine) -> dict[str, object]:
    return {
        "count": line.count,
        "said": line.verdict.value,
        "tool": plain(line.tool),
        "agent": plain(line.agent),
        "call": insights.became(line.verdict, line.outcome),
    }


def _write(
    mail: str,
    matter: Matter,
    values: Mapping[str, object],
    *,
    url: str,
    page: str | None = None,
    name: NoticeId | None = None,
    written_at: datetime | None = None,
) -> Message:
    def part(part_name: str) -> str:
        return _TEMPLATES.get_template(f"{mail}/{part_name}").render(values, url=url)

    subject = part("subject.txt").strip()
    return Message(
        notice_id=name or matter.notice_id,
        to=matter.email,
        subject=subject,
        text=part("body.txt"),
        html=part("body.html"),
        brief=f"{brief(subject)}\n{page or url}",
        written_at=(written_at or matter.created_at).astimezone(UTC),
        thread=matter.thread if name is None and matter.thread != matter.notice_id else None,
    )


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
