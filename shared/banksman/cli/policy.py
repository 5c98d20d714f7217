"""Commands about the policy: check, upload, show, versions, simulate, replay, drafts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from banksman.cli import given, place, show
from banksman.errors import InvalidInput

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Policy, Replay

policy = typer.Typer(help="The rules for who must approve what: try them, put them in force.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="A policy, as banksman.toml.")]
Candidate = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="A candidate, in place of the policy in force.", show_default=False),
]


@policy.command()
def check(file: File, *, as_json: given.Json = False) -> None:
    """Check a policy: its text, and, where a database is at hand, that there are people enough for every rule."""
    from banksman import rule_file

    rules = rule_file.read_path(file)
    if people := place.has_database():
        from banksman import ledger
        from banksman.ledger import staff

        with ledger.once(place.database_url(), name="banksman-policy") as conn:
            everybody = staff.everybody(conn)
        rule_file.check_reach(rules, everybody, str(file))
    if as_json:
        show.as_json({"rules": len(rules.rules), "people_checked": people})
        return
    count = "1 rule" if len(rules.rules) == 1 else f"{len(rules.rules)} rules"
    enough = ", and there are people enough for each."
    unknown = ". Whether people can meet them was not checked: no database."
    typer.echo(f"{show.prose(str(file))} is in order: {count}{enough if people else unknown}")


@policy.command()
def upload(
    file: File,
    *,
    after: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Only if version N is still the one in force (0: none was).", show_default=False
        ),
    ] = None,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Put a policy in force. Administrators only."""
    from banksman import rule_file

    text = rule_file.read_path(file).text
    with place.find().person(as_email) as banksman:
        made = banksman.upload_policy(text, after=after)
    _show(made, as_json=as_json, whole=False)


@policy.command("show")
def show_policy(*, as_json: given.Json = False) -> None:
    """Print the policy in force."""
    with place.find().person() as banksman:
        _show(banksman.policy(), as_json=as_json)


@policy.command()
def versions(*, as_json: given.Json = False) -> None:
    """List the versions that were uploaded, newest first."""
    with place.find().person() as banksman:
        found = banksman.policy_versions(limit=100).items
    if as_json:
        show.as_json(found)
        return
    rows = [
        [one.version, show.moment(one.at), one.by or "", (one.sha256 or "")[:12], one.problem or ""] for one in found
    ]
    show.table(["version", "uploaded", "by", "sha256", "problem"], rows)


@policy.command()
def simulate(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    arguments: Annotated[str, typer.Argument(help="The call's arguments, as a JSON object.")] = "{}",
    *,
    candidate: Candidate = None,
    requester: Annotated[str, typer.Option(help="Who asked for the run.")] = "",
    tag: Annotated[
        list[str] | None, typer.Option(help="A tag of the run; may be given often.", show_default=False)
    ] = None,
    as_json: given.Json = False,
) -> None:
    """Say what becomes of one call: allowed, denied or asked, by which rule, and of whom."""
    from banksman import digest

    said: Any = digest.parse(arguments, what="ARGUMENTS")
    if not isinstance(said, dict):
        raise InvalidInput('ARGUMENTS is not a JSON object like {"path": "/notes.txt"}.')
    more = {"policy": _text(candidate), "requester": requester, "tags": tag or []}
    with place.find().person() as banksman:
        judged = banksman.simulate(agent, tool, cast("dict[str, Any]", said), **more)
    if as_json:
        show.as_json(judged)
        return
    where = "" if judged.line is None else f", line {judged.line}"
    typer.echo(f"{judged.verdict}: rule {judged.rule} of policy {judged.policy}{where}")
    typer.echo(show.prose(judged.because))
    if judged.requirement is not None:
        from banksman import reach
        from banksman.records import Requirement

        typer.echo(show.prose(reach.in_words(Requirement.from_json(judged.requirement))))


@policy.command()
def replay(
    *,
    candidate: Candidate = None,
    since: Annotated[str, typer.Option(help="How far back, as 30d or 12h.")] = "30d",
    as_json: given.Json = False,
) -> None:
    """Say what a policy would have said of the calls that were asked, and where people decided otherwise."""
    text = _text(candidate)
    with place.find().person() as banksman:
        found = _everything(banksman, since, text)
    if as_json:
        show.as_json(found)
        return
    for line in sentences(found):
        typer.echo(line)
    rows = [[one.request_id, one.tool, one.state, one.verdict, one.rule] for one in found.examples]
    if rows:
        typer.echo("")
        show.table(["request", "tool", "people", "policy", "rule"], rows)


@policy.command()
def drafts(*, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Print rules drafted from 20 like decisions in a row of yours. Nothing comes of them by itself."""
    with place.find().person(as_email) as banksman:
        found = banksman.drafts().items
    if as_json:
        show.as_json(found)
        return
    if not found:
        typer.echo("Nothing to draft: nowhere have you decided 20 times in a row alike on what is still asked.")
    for draft in found:
        done, contrary = ("allowed", "denied") if draft.verdict == "allow" else ("denied", "approved")
        typer.echo(
            f"# In 30 days it would have {done} {draft.matched:,} of {draft.examined:,} calls, "
            f"{draft.disagreements:,} of which people {contrary}."
        )
        typer.echo(show.prose(draft.text))


def sentences(found: Replay) -> list[str]:
    """A replay in words."""
    lines = [f"{found.examined:,} calls were asked; policy {found.policy} would have"]
    allowed, denied = found.verdicts.get("allow", {}), found.verdicts.get("deny", {})
    asked = found.verdicts.get("ask", {})
    lines.append(f"  allowed {sum(allowed.values()):,}, {allowed.get('denied', 0):,} of which people denied")
    lines.append(f"  denied {sum(denied.values()):,}, {denied.get('approved', 0):,} of which people approved")
    how = ", ".join(f"{found.asking.get(name, 0):,} {word}" for name, word in _ASKING if found.asking.get(name))
    lines.append(f"  asked {sum(asked.values()):,}" + (f": {how}" if how else ""))
    if found.unclear:
        lines.append(f"  {found.unclear:,} of these because a rule's condition could not be worked out")
    if found.unreadable:
        lines.append(f"  {found.unreadable:,} could not be read")
    return lines


_ASKING = (("same", "as they were"), ("stricter", "more strictly"), ("milder", "more mildly"))


def _everything(banksman: Client, since: str, text: str | None) -> Replay:
    whole = page = banksman.replay(since=since, policy=text)
    while page.next_cursor is not None:
        page = banksman.replay(since=since, policy=text, cursor=page.next_cursor)
        whole = whole + page
        if sys.stderr.isatty():
            show.complain(f"{whole.examined:,} requests read")
    return whole


def _text(candidate: Path | None) -> str | None:
    from banksman import rule_file

    return None if candidate is None else rule_file.read_path(candidate).text


def _show(found: Policy, *, as_json: bool, whole: bool = True) -> None:
    if as_json:
        show.as_json(found)
        return
    by = "" if found.by is None else f", uploaded {show.moment(found.at)} by {show.prose(found.by)}"
    typer.echo(f"policy {found.version} ({found.source}){by}")
    if found.problem is not None:
        typer.echo(f"It cannot be used: {show.prose(found.problem)} Every call is asked at the highest tier.")
    if whole and found.text is not None:
        typer.echo("")
        typer.echo(show.prose(found.text))
