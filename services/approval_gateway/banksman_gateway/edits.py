"""Edits: what a person changed of a call, as the next revision of its request.

An edit is checked against the tool's JSON schema and hashed here, so that the next digest is over the very bytes that
people vote on from then on. `decide` asks for it, in the transaction of its author's vote.
"""

from __future__ import annotations

from dataclasses import replace

from banksman import digest, ids, masks
from banksman.digest import Json
from banksman.errors import InvalidInput
from banksman.ledger import Connection, audit, requests
from banksman.records import Event, Person, Request
from banksman_gateway import patch

MOST_REVISIONS = 100
"""Every one of them is kept, and shown."""


def revise(conn: Connection, request: Request, author: Person | None, *, arguments: Json, exact: Json) -> Request:
    """Open → open at the next revision, with these arguments (a merge patch, or `exact`); as it is, if they are equal.

    The caller has worked out that the stored action is the one behind its digest.
    """
    assert author is not None
    if request.revision >= MOST_REVISIONS:
        raise InvalidInput(f"This has been changed {MOST_REVISIONS - 1} times. Decide on it as it is.")
    action = digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES)
    wanted = patch.merged(action["arguments"], arguments) if exact is None else exact
    wanted = masks.restored(wanted, action["arguments"], masks.names(action))
    checked = digest.check(wanted, what="The edited arguments")
    if digest.canonical(checked) == digest.canonical(action["arguments"]):
        return request
    must_match_schema(conn, request, checked)
    edited = {**action, "arguments": checked}
    body = digest.canonical(edited)
    revised = replace(
        request, revision=request.revision + 1, action=body, digest=digest.of_action(edited), author_id=author.id
    )
    requests.revise(conn, request.id, revised.revision, action=body, digest=revised.digest, author=author.id)
    told: dict[str, Json] = {"revision": revised.revision, "digest": revised.digest.hex()}
    audit.append(conn, Event(ids.show("per", author.id), "request.revised", request.run_id, request.id, told))
    return revised


def must_match_schema(conn: Connection, request: Request, arguments: Json) -> None:
    """Nothing, when these arguments fit the request's tool; `InvalidInput` otherwise, saying where."""
    import jsonschema  # heavy, and wanted for edits alone
    import referencing

    schema = digest.parse(requests.schema(conn, request.schema_hash), what="The tool's schema")
    # An empty registry: a schema that comes from far away names no address that would be read here.
    problem = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())
    try:
        wrong = list(problem.iter_errors(arguments))
    except Exception as error:  # noqa: BLE001  whatever a foreign schema fails with, nothing can be checked
        raise InvalidInput(
            f"The schema of the tool {request.tool} cannot be checked here ({type(error).__name__}), so its calls are"
            " approved or denied as they are."
        ) from None
    secret = masks.names(digest.parse(request.action, what="The stored action", limit=4 * digest.MAX_BYTES))
    for error in wrong:
        where = "/".join(map(str, error.absolute_path)) or "the arguments"
        # The message quotes the value, which may be what nobody is to see.
        path = ".".join(str(part) for part in error.absolute_path if isinstance(part, str))
        cover = masks.Cover(secret)
        cover.value(error.instance, path)
        covered = cover.found or any(path == name or path.startswith(f"{name}.") for name in secret)
        said = f"it must satisfy {error.validator}" if covered else error.message[:300]
        raise InvalidInput(f"The edited arguments do not fit the tool {request.tool}: {where}: {said}")
