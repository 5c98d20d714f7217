"""Commands of reviewers: requests, approve, deny, answer, settle, open, mail."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from banksman.cli import given, place, show
from banksman.errors import BanksmanError, ConfigurationError, Conflict, InvalidInput

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Request

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask again.")]
Why = Annotated[str, typer.Option("--reason", help="Why; kept with the vote.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Why; the agent reads it.", show_default=False)]


def requests(
    state: Annotated[str, typer.Option(help="open, approved, denied, answered, expired, …, or all.")] = "open",
    run: Annotated[str, typer.Option(help="Only requests of this run.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    *,
    quiet: given.Quiet = False,
    as_json: given.Json = False,
) -> None:
    """List what waits for people, oldest first."""
    with place.find().person() as banksman:
        found = banksman.requests(state=None if state == "all" else state, run_id=run or None, limit=limit)
    if as_json:
        show.as_json(found.items)
    elif quiet:
        for request in found:
            typer.echo(request.id)
    elif not found.items:
        typer.echo("Nothing waits." if state == "open" else "There is none.")
    else:
        rows = [
            [item.id, item.kind, item.tier, item.state, item.agent, item.tool, show.until(item.expires_at)]
            for item in found
        ]
        show.table(["request", "kind", "tier", "state", "agent", "tool", "time left"], rows)


def approve(
    which: given.Ids = None,
    *,
    reason: Why = "",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=JSON", help="Approve with this argument changed; may be repeated."),
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="Change the arguments in $EDITOR first.")] = False,
    yes: Yes = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Agree to what is shown. Exactly that is approved: if it changes meanwhile, the exit code is 3."""
    patch = _patch(changes or [])

    def arguments(request: Request) -> Mapping[str, Any] | None:
        return _edited(request, patch) if edit else patch or None

    def agree(banksman: Client, request: Request, said: Mapping[str, Any] | None) -> Request:
        exact, merged = (said, None) if edit else (None, said)
        return banksman.vote(request, "approve", reason=reason or None, arguments=merged, arguments_exact=exact)

    _each(which, "Approve", agree, arguments=arguments, yes=yes, as_email=as_email, as_json=as_json)


def deny(
    which: given.Ids = None,
    *,
    reason: Reason = "",
    stop: Annotated[bool, typer.Option("--stop", help="End the run as well.")] = False,
    yes: Yes = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Refuse; the agent reads the reason and goes on without it."""

    def refuse(banksman: Client, request: Request, _: Mapping[str, Any] | None) -> Request:
        return banksman.deny(request, reason=reason or None, stop_run=stop)

    _each(which, "Deny", refuse, arguments=None, yes=yes, as_email=as_email, as_json=as_json)


def answer(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="A request of kind question or external.")],
    value: Annotated[str | None, typer.Argument(help="The answer: JSON, or plain text.", show_default=False)] = None,
    *,
    text: Annotated[bool, typer.Option("--text", help="Take the answer as text even when it is JSON.")] = False,
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Answer a question."""
    [wanted] = given.read_ids([request_id], prefix="req")
    with place.find().person(as_email) as banksman:
        request = banksman.request(wanted)
        if value is None:
            if not as_json:
                show.request(request)
            value = typer.prompt("Answer", err=as_json)
        _after(banksman.answer(request, value if text else _json_or_text(str(value))), as_json=as_json)


def settle(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST", help="A request of kind outcome.")],
    verdict: Annotated[Literal["happened", "rerun", "stop"], typer.Argument(help="What became of the call.")],
    *,
    say: Annotated[str, typer.Option(help="With `happened`: what the agent is told.", show_default=False)] = "",
    reason: Why = "",
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Say what became of a call whose worker died in the middle of it."""
    [wanted] = given.read_ids([request_id], prefix="req")
    if verdict == "happened" and not say:
        raise InvalidInput("Say what the agent is to be told: --say 'The refund is on the account.'")
    with place.find().person(as_email) as banksman:
        request = banksman.request(wanted)
        if not as_json:
            show.request(request)
        voted = banksman.vote(request, verdict, reason=reason or None, answer=say or None)
        _after(voted, as_json=as_json)


def open_inbox(
    which: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A run or a request; the inbox when not given.", show_default=False),
    ] = None,
    *,
    only_print: Annotated[bool, typer.Option("--print", help="Print the address, start no browser.")] = False,
) -> None:
    """Open the inbox in a browser, or print where it is."""
    found = place.find()
    kinds = {"run": "runs", "req": "requests"}
    url = found.url.rstrip("/") + "/"
    if which:
        prefix = which[:3]
        if prefix not in kinds:
            raise InvalidInput(f"{which[:60]!r} is neither a run nor a request.")
        [wanted] = given.read_ids([which], prefix=prefix)
        url += f"{kinds[prefix]}/{wanted}"
    typer.echo(url)
    if found.stack is not None:
        people = " or ".join(found.people)
        show.complain(f"Sign in as {people}; the code arrives in the caught mail: banksman mail 1")
    if not only_print and sys.stdout.isatty() and os.environ.get("BROWSER", "x"):
        typer.launch(url)


def mail(
    number: Annotated[
        int | None, typer.Argument(min=1, help="Which mail to show; 1 is the newest.", show_default=False)
    ] = None,
    *,
    to: Annotated[str, typer.Option(help="Only mail to this address.", show_default=False)] = "",
    as_json: given.Json = False,
) -> None:
    """List the mail that the stack on this machine has caught, or show one."""
    from banksman.cli import maildir

    found = maildir.read(place.find().maildir(), to=to)
    if number is not None:
        if number > len(found):
            raise InvalidInput(f"There are {len(found)} mails.")
        one = found[number - 1]
        if as_json:
            show.as_json(one.as_json())
        else:
            typer.echo(show.prose(one.text()))
    elif as_json:
        show.as_json([one.as_json() for one in found])
    elif not found:
        typer.echo("No mail has been caught.")
    else:
        rows = [[str(n), one.at, one.to, one.subject] for n, one in enumerate(found, 1)]
        show.table(["", "at", "to", "subject"], rows)


Cast = Callable[["Client", "Request", "Mapping[str, Any] | None"], "Request"]


def _each(
    which: Sequence[str] | None,
    verb: str,
    vote: Cast,
    *,
    arguments: Callable[[Request], Mapping[str, Any] | None] | None,
    yes: bool,
    as_email: str | None,
    as_json: bool,
) -> None:
    """Show each request, ask, and vote on exactly what was shown."""
    wanted = given.read_ids(which, prefix="req")
    if not yes and not sys.stdin.isatty():
        if not which:
            raise InvalidInput("Nobody can be asked here. Say --yes to vote on what these ids stand for now.")
        yes = True  # named one by one on the command line, where nobody can be asked
    refused = False
    with place.find().person(as_email) as banksman:
        for request_id in wanted:
            request = banksman.request(request_id)
            if request.state == "cancelled":
                vote(banksman, request, None)  # refused, in the gateway's words: who stopped the run, and when
            if request.state != "open":
                raise Conflict(f"{request.id} is {request.state} already.{_winner(request)}", {"state": request.state})
            if not as_json:
                show.request(request)
            said = None if arguments is None else arguments(request)
            if said is not None and not as_json:
                typer.echo(f"with these arguments: {json.dumps(said)}")
            if not yes and not _agreed(banksman, request, f"{verb} this?", err=as_json):
                refused = True
                continue
            _after(vote(banksman, request, said), as_json=as_json)
    raise typer.Exit(1 if refused else 0)


def _agreed(banksman: Client, request: Request, question: str, *, err: bool) -> bool:
    """What is answered at the terminal; meanwhile the others see that somebody looks."""
    with suppress(BanksmanError):
        banksman.look(request)
    if typer.confirm(question, err=err):
        return True
    with suppress(BanksmanError):
        banksman.stop_looking(request)
    return False


def _after(request: Request, *, as_json: bool) -> None:
    if as_json:
        show.as_json(request)
        return
    typer.echo(f"{request.id} is {request.state}.")
    if request.state == "open":
        typer.echo(f"{len(request.quorum.agreed)} agreed. It waits for {show.prose(request.quorum.waits_for)}.")


def _winner(request: Request) -> str:
    by = ", ".join(request.decision.by) if request.decision else ""
    return f" It was {by}, {show.moment(request.settled_at)}." if by else ""


def _patch(changes: Sequence[str]) -> dict[str, Any]:
    from banksman import digest

    found: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{change[:60]!r} is not KEY=JSON.")
        try:
            found[key] = digest.parse(text, what=f"The value of {key!r}")
        except InvalidInput as error:
            raise InvalidInput(f"{error} Text goes in quotes: --set '{key}=\"some text\"'.") from None
    return found


def _edited(request: Request, patch: Mapping[str, Any]) -> dict[str, Any] | None:
    """All of the arguments as they came back from the editor; None when nothing was changed."""
    from banksman import digest

    before: Mapping[str, Any] = request.arguments or {}
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="banksman-") as folder:
        path = Path(folder) / "arguments.json"
        path.write_text(json.dumps({**before, **patch}, indent=2) + "\n")
        try:
            ended = subprocess.run([*command, str(path)], check=False).returncode
        except OSError as error:
            raise ConfigurationError(f"The editor {command[0]!r} cannot be started: {error.strerror}.") from None
        if ended != 0:
            raise InvalidInput(f"The editor ended with code {ended}; nothing was voted.")
        after: Any = digest.parse(path.read_bytes(), what="What came back from the editor")
    if not isinstance(after, dict):
        raise InvalidInput("The arguments must stay a JSON object.")
    return None if json.dumps(after) == json.dumps(before) else cast("dict[str, Any]", after)


def _json_or_text(text: str) -> Any:
    from banksman import digest

    try:
        return digest.parse(text)
    except InvalidInput:
        return text
