"""Commands about runs: submit, runs, show, watch, cancel, retry, fail."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from banksman.cli import given, place, show
from banksman.errors import InvalidInput

if TYPE_CHECKING:
    from banksman.client import Client
    from banksman.shapes import Moment, Run


def submit(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    prompt: Annotated[
        str | None, typer.Argument(help="What to do; read from standard input when not given.", show_default=False)
    ] = None,
    *,
    metadata: Annotated[str, typer.Option(help="A JSON object to keep with the run.")] = "{}",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be repeated.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="9 starts first.")] = 5,
    idempotency_key: Annotated[
        str, typer.Option(help="Under the same key a run is submitted once.", show_default=False)
    ] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run to its end.")] = False,
    quiet: given.Quiet = False,
    as_json: given.Json = False,
) -> None:
    """Submit a run."""
    if prompt is None and sys.stdin.isatty():
        raise InvalidInput("Say what to do: `banksman submit AGENT PROMPT`.")
    wanted = sys.stdin.read() if prompt is None else prompt
    with place.find().submitter() as banksman:
        run = banksman.submit(
            agent,
            wanted,
            metadata=_object(metadata),
            tags=tag or (),
            priority=priority,
            idempotency_key=idempotency_key or None,
        )
        if wait:
            if not as_json:
                typer.echo(run.id)
            _follow(banksman, run.id, as_json=as_json)
        elif as_json:
            show.as_json(run)
        elif quiet or not sys.stdout.isatty():
            typer.echo(run.id)
        else:
            typer.echo(f"{run.id} is {run.status}. Follow it with: banksman watch {run.id}")


def runs(
    status: Annotated[str, typer.Option(help="Only runs with this status.")] = "",
    agent: Annotated[str, typer.Option(help="Only runs of this agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    *,
    quiet: given.Quiet = False,
    as_json: given.Json = False,
) -> None:
    """List runs, newest first."""
    with place.find().person() as banksman:
        found = banksman.runs(status=status or None, agent=agent or None, limit=limit)
    if as_json:
        show.as_json(found.items)
    elif quiet:
        for run in found:
            typer.echo(run.id)
    else:
        rows = [[run.id, run.status, run.agent, run.requester, show.moment(run.created_at)] for run in found]
        show.table(["run", "status", "agent", "requester", "created"], rows)


def show_run(
    which: given.Ids = None,
    *,
    files: Annotated[bool, typer.Option("--files", help="List the files of its workspace.")] = False,
    file: Annotated[str, typer.Option(help="Write one file of its workspace to standard output.")] = "",
    messages: Annotated[bool, typer.Option("--messages", help="The conversation, as JSON.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="What happened, in order.")] = False,
    as_json: given.Json = False,
) -> None:
    """Show a run, or a request (req_…)."""
    if which and all(word.startswith("req_") for word in which):
        _show_requests(which, as_json=as_json)
        return
    with place.find().person() as banksman:
        for run_id in given.read_ids(which, prefix="run"):
            if file:
                sys.stdout.buffer.write(banksman.file(run_id, file))
            elif files:
                _show_files(banksman, run_id, as_json=as_json)
            elif messages:
                show.as_json(banksman.messages(run_id))
            elif timeline:
                _show_timeline(banksman, run_id, as_json=as_json)
            else:
                run = banksman.run(run_id)
                show.as_json(run) if as_json else show.run(run)


def watch(which: given.Ids = None, *, as_json: given.Json = False) -> None:
    """Follow a run until it ends. The exit code is 1 when it did not finish."""
    run_ids = given.read_ids(which, prefix="run")
    ended = True
    with place.find().person() as banksman:
        for run_id in run_ids:
            run = _to_the_end(banksman, run_id, as_json=as_json)
            ended = ended and run.status == "finished"
    raise typer.Exit(0 if ended else 1)


def cancel(which: given.Ids = None, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Stop runs."""
    with place.find().person(as_email) as banksman:
        for run_id in given.read_ids(which, prefix="run"):
            _tell(banksman.cancel(run_id), as_json=as_json)


def retry(which: given.Ids = None, *, as_email: given.As = None, as_json: given.Json = False) -> None:
    """Give stuck runs another chance."""
    with place.find().person(as_email) as banksman:
        for run_id in given.read_ids(which, prefix="run"):
            _tell(banksman.retry(run_id), as_json=as_json)


def fail(
    which: given.Ids = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the run's last error.")],
    as_email: given.As = None,
    as_json: given.Json = False,
) -> None:
    """Give stuck runs up for good, saying why."""
    with place.find().person(as_email) as banksman:
        for run_id in given.read_ids(which, prefix="run"):
            _tell(banksman.fail(run_id, reason), as_json=as_json)


def _follow(banksman: Client, run_id: str, *, as_json: bool) -> None:
    run = _to_the_end(banksman, run_id, as_json=as_json)
    raise typer.Exit(0 if run.status == "finished" else 1)


def _to_the_end(banksman: Client, run_id: str, *, as_json: bool) -> Run:
    banksman.run(run_id)  # an unknown id is said before anything is printed
    for event in banksman.events(run_id):
        if as_json:
            show.as_json({"id": event.id, "event": event.name, **event.data})
        else:
            show.event(event)
            if event.name == "request.opened":
                typer.echo(f"          waits for a person: banksman approve {event.data.get('request_id')}")
        if event.name == "run.stuck" and banksman.run(run_id).status == "stuck":
            break
    run = banksman.run(run_id)
    if as_json:
        show.as_json(run)
    else:
        typer.echo("")
        show.run(run)
    return run


def _tell(run: Run, *, as_json: bool) -> None:
    if as_json:
        show.as_json(run)
        return
    soon = " soon: its worker stops it" if run.cancel_requested and run.status == "running" else ""
    typer.echo(f"{run.id} is {'cancelled' if soon else run.status}{soon}.")


def _show_requests(which: list[str], *, as_json: bool) -> None:
    with place.find().person() as banksman:
        for request_id in given.read_ids(which, prefix="req"):
            request = banksman.request(request_id)
            show.as_json(request) if as_json else show.request(request)


def _show_files(banksman: Client, run_id: str, *, as_json: bool) -> None:
    found = banksman.files(run_id)
    if as_json:
        show.as_json(found)
    else:
        show.table(["path", "bytes", "sha256"], [[f.path, str(f.size), f.sha256[:16]] for f in found])


def _show_timeline(banksman: Client, run_id: str, *, as_json: bool) -> None:
    found = banksman.timeline(run_id)
    if as_json:
        show.as_json(found)
        return
    rows = [
        [f"{item.at.astimezone():%H:%M:%S}", item.what, item.who, item.request_id or "", _call(item)] for item in found
    ]
    show.table(["time", "what", "who", "request", "call"], rows)


def _call(item: Moment) -> str:
    """Of a tool call: the tool, and how far it came as far as anybody knows."""
    if not item.what.startswith("execution."):
        return ""
    lost = item.detail.get("state") == "started"
    return f"{item.detail.get('tool')}, {'no end is known' if lost else item.detail.get('outcome', '')}".rstrip(", ")


def _object(text: str) -> dict[str, object]:
    from banksman import digest

    found: object = digest.parse(text, what="--metadata")
    if not isinstance(found, dict):
        raise InvalidInput("--metadata must be a JSON object.")
    return {str(key): value for key, value in found.items()}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
