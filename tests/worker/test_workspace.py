"""A run's files: what they refuse, what survives, and the library's own suite for workspaces."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from banksman.errors import InvalidInput, NotFound
from banksman_worker import workspace as workspaces
from banksman_worker.workspace import Changes, Workspace


class TestTheLibrarysSuite:
    """What pydantic-ai asks of every workspace's files, asked of ours.

    Its other rules are about commands, links and devices, none of which ours has.
    """

    pytestmark = pytest.mark.anyio
    test_bytes = WorkspaceBackendSuite.test_bytes_round_trip_and_write_creates_parents
    test_exists = WorkspaceBackendSuite.test_exists
    test_file_as_parent = WorkspaceBackendSuite.test_file_as_parent_raises_not_a_directory
    test_members = WorkspaceBackendSuite.test_has_the_required_members
    test_large_file = WorkspaceBackendSuite.test_large_file_round_trip
    test_list_file = WorkspaceBackendSuite.test_listing_a_file_raises_not_a_directory
    test_make_dir = WorkspaceBackendSuite.test_make_dir_creates_parents_and_is_idempotent
    test_dir_over_file = WorkspaceBackendSuite.test_making_a_directory_over_a_file_raises_file_exists
    test_missing = WorkspaceBackendSuite.test_missing_paths_raise_file_not_found
    test_realpath = WorkspaceBackendSuite.test_native_realpath_keeps_the_working_dir_and_missing_names
    test_read_directory = WorkspaceBackendSuite.test_reading_a_directory_raises_is_a_directory
    test_ref = WorkspaceBackendSuite.test_ref_exists_after_the_first_operation_and_is_stable
    test_remove = WorkspaceBackendSuite.test_remove_deletes_a_file_or_a_tree
    test_keep_root = WorkspaceBackendSuite.test_remove_refuses_the_working_dir_and_its_ancestors
    test_stat = WorkspaceBackendSuite.test_stat_and_list_dir
    test_working_dir = WorkspaceBackendSuite.test_working_dir_is_canonical
    test_write_directory = WorkspaceBackendSuite.test_writing_to_a_directory_raises_is_a_directory

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def has_real_posix_shell(self) -> bool:
        return False

    @pytest.fixture
    def enforces_parent_file_errors(self) -> bool:
        return True

    @pytest.fixture
    def backend(self) -> Workspace:
        return Workspace("run_1")


def test_a_restored_workspace_holds_everything_the_old_one_held() -> None:
    old = Workspace("run_1")
    old.write("/backup.sh", b"#!/bin/sh\n")
    old.write("/data/\u00fcber.bin", b"\x00\xff")
    old.write("/bin/tool", b"\x7fELF", executable=True)
    old.add_directory("/empty/deep")
    old.todos = [{"id": "1", "content": "archive", "status": "pending"}]
    old.uploads = {"uploads/a.csv": {"name": "a.csv", "size": 3}}

    new = Workspace.restore("run_1", old.manifest(), old.changed_blobs(()), old.state())

    assert dict(new.files()) == dict(old.files())
    assert new.manifest() == old.manifest()
    assert new.state() == old.state()
    assert new.directories() == old.directories()
    assert new.executable("/bin/tool")
    assert not new.executable("/backup.sh")
    assert new.ref == old.ref


def test_a_workspace_with_a_missing_content_is_not_restored() -> None:
    old = Workspace("run_1")
    old.write("/a", b"a")
    old.write("/b", b"b")
    blobs = old.changed_blobs(())
    del blobs[old.manifest()["/b"]]

    with pytest.raises(NotFound, match="'/b' of run run_1"):
        Workspace.restore("run_1", old.manifest(), blobs)


def test_a_workspace_with_a_swapped_content_is_not_restored() -> None:
    old = Workspace("run_1")
    old.write("/a", b"a")
    digest = old.manifest()["/a"]

    with pytest.raises(NotFound, match="not what its manifest names"):
        Workspace.restore("run_1", old.manifest(), {digest: b"something else"})


def test_the_manifest_names_contents_by_their_hash_and_each_blob_is_handed_over_once() -> None:
    workspace = Workspace("run_1")
    workspace.write("/b", b"same")
    workspace.write("/a", b"same")
    same = sha256(b"same").hexdigest()

    assert list(workspace.manifest().items()) == [("/a", same), ("/b", same)]
    assert workspace.changed_blobs(()) == {same: b"same"}
    assert workspace.changed_blobs({same}) == {}

    workspace.write("/a", b"other")
    assert list(workspace.changed_blobs({same}).values()) == [b"other"]


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("backup.sh", "/backup.sh"),
        ("//data///x", "/data/x"),
        ("/a/./b/../c", "/a/c"),
        ("/workspace/../etc/passwd", "/etc/passwd"),
    ],
)
def test_a_path_is_stored_in_one_spelling(given: str, stored: str) -> None:
    workspace = Workspace("run_1")
    workspace.write(given, b"x")

    assert list(workspace.manifest()) == [stored]
    assert workspace.read(stored) == b"x"


@pytest.mark.parametrize("path", ["", "..", "/../etc/passwd", "a/../../b", "/a\0b", "/\ud800", "/" + "x" * 256])
def test_a_path_that_leads_out_or_cannot_be_stored_is_refused(path: str) -> None:
    workspace = Workspace("run_1")

    with pytest.raises(InvalidInput):
        workspace.write(path, b"x")

    assert workspace.manifest() == {}


def test_a_file_and_a_directory_cannot_share_a_path() -> None:
    workspace = Workspace("run_1")
    workspace.write("/a/b", b"x")

    with pytest.raises(IsADirectoryError):
        workspace.write("/a", b"x")
    with pytest.raises(NotADirectoryError):
        workspace.write("/a/b/c", b"x")
    with pytest.raises(FileExistsError):
        workspace.add_directory("/a/b")


def test_a_run_may_keep_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(workspaces, "MAX_TOTAL_BYTES", 15)
    monkeypatch.setattr(workspaces, "MAX_FILES", 3)
    workspace = Workspace("run_1")
    workspace.write("/a", b"x" * 10)

    with pytest.raises(InvalidInput, match="/big is"):
        workspace.write("/big", b"x" * 11)
    with pytest.raises(InvalidInput, match="would hold"):
        workspace.write("/b", b"x" * 6)
    workspace.write("/a", b"x" * 5)
    workspace.write("/b", b"x" * 6)
    workspace.write("/c", b"")
    with pytest.raises(InvalidInput, match="more than 3 files"):
        workspace.write("/d", b"")

    assert sorted(workspace.manifest()) == ["/a", "/b", "/c"]


def test_recorded_changes_can_be_done_again_on_an_older_copy() -> None:
    workspace = Workspace("run_1")
    workspace.write("/kept", b"1")
    workspace.write("/changed", b"1", executable=True)
    workspace.write("/removed", b"1")
    workspace.write("/build/a", b"1")
    workspace.add_directory("/empty")
    workspace.write("/tool", b"1")
    before, manifest, blobs, state = (
        workspace.mark(),
        workspace.manifest(),
        workspace.changed_blobs(()),
        workspace.state(),
    )
    workspace.write("/changed", b"2", executable=True)
    workspace.write("/made", b"2")
    workspace.write("/tool", b"1", executable=True)
    workspace.delete("/removed")
    workspace.delete("/empty")
    workspace.delete("/build")
    workspace.write("/build", b"a file now")
    workspace.add_directory("/new/one")

    kept = json.loads(json.dumps(workspace.changes_since(before).as_json()))
    older = Workspace.restore("run_1", manifest, blobs, state)
    older.replay(Changes.from_json(kept), workspace.changed_blobs(()))

    assert sorted(kept["written"]) == ["/build", "/changed", "/made", "/tool"]
    assert kept["removed"] == ["/build/a", "/removed"]
    assert older.manifest() == workspace.manifest()
    assert older.state() == workspace.state()
    assert older.changes_since(workspace.mark()).as_json() == {}


def test_what_an_older_release_recorded_can_still_be_done_again() -> None:
    workspace = Workspace("run_1")
    workspace.write("/a", b"1")
    blobs = {sha256(b"2").hexdigest(): b"2"}

    workspace.replay(Changes.from_json({"written": {"/b": sha256(b"2").hexdigest()}, "removed": ["/a"]}), blobs)

    assert workspace.files() == {"/b": b"2"}


def test_removing_a_directory_frees_the_room_its_files_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspaces, "MAX_TOTAL_BYTES", 10)
    workspace = Workspace("run_1")
    workspace.write("/d/a", b"x" * 10)

    workspace.delete("/d")
    workspace.write("/b", b"x" * 10)

    assert list(workspace.manifest()) == ["/b"]
    assert workspace.directories() == frozenset()
