"""The gateway's keys as they are rotated, retired and revoked: what they open then, and what becomes of the files."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from banksman import files, key_life
from banksman.deployment import write_deployment
from banksman.embedded import keyring
from banksman.errors import ConfigurationError, Conflict, NotFound, NotGenuine
from banksman.key_life import Keys, OfDeployment, OfStack, Store
from banksman.links import LinkKeys, point
from banksman.signing import Signer, Verifier
from banksman.vault import Ring

STATEMENT = {"verdict": "approved"}


def states(keys: Keys) -> dict[str, str]:
    return {listed.kid: listed.state for listed in key_life.everything(keys)}


def signer(keys: Keys) -> Signer:
    return Signer.read(keys.signing_key)


@pytest.fixture
def first() -> Keys:
    return Keys.make()


@pytest.fixture(params=["stack", "deployment"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "stack":
        keyring.load_or_make(tmp_path / "secrets.json", data_exists=False)
        return OfStack(tmp_path / "secrets.json")
    write_deployment(tmp_path, admin_email="ada@example.org", public_url="https://ok.example.org")
    return OfDeployment(tmp_path / "secrets")


def test_a_rotated_key_signs_and_the_one_before_still_verifies(first: Keys) -> None:
    signed = signer(first).sign(STATEMENT)
    second = key_life.rotate(first, "signing")
    third = key_life.rotate(second, "signing")
    verifier = Verifier.read(third.verify_keys)

    assert verifier.verify(signed) == STATEMENT
    assert verifier.verify(signer(second).sign(STATEMENT)) == STATEMENT
    assert verifier.verify(signer(third).sign(STATEMENT)) == STATEMENT
    assert list(states(third).values()) == ["current", "retired", "retired", "current", "current"]
    with pytest.raises(NotGenuine):
        Verifier.read(first.verify_keys).verify(signer(second).sign(STATEMENT))


def test_a_revoked_key_verifies_no_more_and_nothing_brings_it_back(first: Keys) -> None:
    old = signer(first)
    keys = key_life.revoke(key_life.rotate(first, "signing"), old.kid)

    for later in (keys, key_life.rotate(keys, "signing"), key_life.revoke(keys, old.kid)):
        assert states(later)[old.kid] == "revoked"
        with pytest.raises(NotGenuine, match="revoked"):
            Verifier.read(later.verify_keys).verify(old.sign(STATEMENT))
    with pytest.raises(Conflict, match="for good"):
        key_life.retire(keys, old.kid)


def test_revoking_the_key_that_signs_makes_another_at_once(first: Keys) -> None:
    keys = key_life.revoke(first, signer(first).kid)

    assert signer(keys).kid != signer(first).kid
    assert states(keys)[signer(keys).kid] == "current"
    assert Verifier.read(keys.verify_keys).verify(signer(keys).sign(STATEMENT)) == STATEMENT


def test_the_key_that_is_used_now_is_rotated_and_not_retired(first: Keys) -> None:
    for listed in key_life.everything(first):
        with pytest.raises(Conflict, match="rotate"):
            key_life.retire(first, listed.kid)
    with pytest.raises(NotFound):
        key_life.retire(first, "g000000")
    with pytest.raises(NotFound):
        key_life.revoke(first, "g000000")


def test_a_key_that_never_came_to_sign_can_be_retired(first: Keys) -> None:
    cut_short = Keys(first.signing_key, key_life.rotate(first, "signing").verify_keys, first.link_keys, "")
    [leftover] = [kid for kid, state in states(cut_short).items() if state == "current" and kid.startswith("g")]

    assert states(key_life.retire(cut_short, leftover))[leftover] == "retired"
    again = key_life.rotate(cut_short, "signing")
    assert states(again)[leftover] == states(again)[signer(first).kid] == "retired"


def test_links_of_a_rotated_key_open_and_those_of_a_revoked_one_do_not(first: Keys) -> None:
    notice, binding = uuid4(), {"reviewer": "ana"}
    token = LinkKeys.read(first.link_keys).token(notice, binding)
    [old] = [listed.kid for listed in key_life.everything(first) if listed.kind == "link"]
    rotated = key_life.rotate(first, "link")

    LinkKeys.read(rotated.link_keys).verify(point(token), binding)
    assert LinkKeys.read(rotated.link_keys).token(notice, binding) != token
    for keys in (key_life.revoke(rotated, old), key_life.revoke(first, old)):
        with pytest.raises(NotGenuine):
            LinkKeys.read(keys.link_keys).verify(point(token), binding)
        assert [listed.state for listed in key_life.everything(keys) if listed.kind == "link"] == ["current"]


def test_a_key_of_the_vault_opens_until_it_is_given_up_and_is_never_revoked(first: Keys) -> None:
    [old] = [listed.kid for listed in key_life.everything(first) if listed.kind == "vault"]
    rotated = key_life.rotate(first, "vault")
    ring = Ring.read(rotated.vault_keys)

    assert list(ring.keys)[1:] == [old]
    assert ring.keys[old] == Ring.read(first.vault_keys).keys[old]
    assert list(Ring.read(key_life.retire(rotated, old).vault_keys).keys) == [ring.current]
    for keys in (first, rotated):
        with pytest.raises(Conflict, match="never be read again"):
            key_life.revoke(keys, old)
    assert key_life.rotate(Keys(first.signing_key, first.verify_keys, first.link_keys, ""), "vault").vault_keys


def test_a_gateway_may_not_sign_with_a_key_that_is_not_current(first: Keys) -> None:
    old, rotated = signer(first), key_life.rotate(first, "signing")

    Verifier.read(rotated.verify_keys).allow(signer(rotated))
    for keys in (rotated, key_life.revoke(rotated, old.kid), Keys.make()):
        with pytest.raises(ConfigurationError, match=old.kid):
            Verifier.read(keys.verify_keys).allow(old)
    with pytest.raises(ConfigurationError, match="different keys"):
        Verifier.read(first.verify_keys).allow(Signer(old.kid, b"\x07" * 32))


def test_what_is_kept_is_what_is_read_and_nothing_else_changes(store: Store, tmp_path: Path) -> None:
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    keys = key_life.revoke(key_life.rotate(key_life.rotate(store.read(), "signing"), "link"), signer(store.read()).kid)

    store.write(keys)

    assert store.read() == keys
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before.keys()
    for path, text in before.items():
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_text().splitlines()) == len(text.splitlines())
        if path.suffix == ".env" and path.stem not in ("worker", "gateway", "notifier", "migrate"):
            assert path.read_text() == text


def test_cut_short_between_the_two_files_of_a_deployment_everything_still_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deployment(tmp_path, admin_email="ada@example.org", public_url="https://ok.example.org")
    store = OfDeployment(tmp_path / "secrets")
    before, real = store.read(), files.write_private

    def write_private(path: Path, text: str) -> None:
        if path.name == "gateway.env":
            raise OSError("No space left on device")
        real(path, text)

    monkeypatch.setattr(files, "write_private", write_private)
    with pytest.raises(OSError, match="No space"):
        store.write(key_life.rotate(before, "signing"))

    gateway = files.settings_in((tmp_path / "secrets" / "gateway.env").read_text())
    still = Signer.read(gateway["BANKSMAN_SIGNING_KEY"])
    Verifier.read(gateway["BANKSMAN_VERIFY_KEYS"]).allow(still)
    assert Verifier.read(store.read().verify_keys).verify(still.sign(STATEMENT)) == STATEMENT
