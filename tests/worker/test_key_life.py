"""What a worker makes of decisions that wait while the gateway's signing key is rotated or revoked."""

from __future__ import annotations

from dataclasses import replace

from banksman import key_life, signing
from banksman.key_life import Keys
from banksman.signing import Signer, Verifier
from tests.worker.conftest import SiteMaker
from tests.worker.test_segment import a_site

LINK = f"l1:{signing.base64url(bytes(32))}"


def keys_of(signer: Signer) -> Keys:
    return Keys(f"{signer.kid}:{signing.base64url(bytes([1] * 32))}", signer.public(), LINK, "")


def test_a_decision_that_waited_across_a_rotation_runs(site: SiteMaker, signer: Signer) -> None:
    before = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = before.waiting("payer")
    before.vote(request, "approve")
    rotated = key_life.rotate(keys_of(signer), "signing")

    after = a_site(site, ("pay", {"amount": 5}), trusts=Verifier.read(rotated.verify_keys))
    run = after.advance(run_id)

    assert run.status == "finished"
    assert after.effects == [("pay", 5, "EUR")]


def test_a_decision_under_a_revoked_key_is_asked_again_and_runs_under_the_new_one(
    site: SiteMaker, signer: Signer
) -> None:
    before = a_site(site, ("pay", {"amount": 5}))
    run_id, [request] = before.waiting("payer")
    before.vote(request, "approve")
    revoked = key_life.revoke(keys_of(signer), signer.kid)

    after = a_site(site, ("pay", {"amount": 5}), trusts=Verifier.read(revoked.verify_keys))
    after.pen = replace(after.pen, signer=Signer.read(revoked.signing_key))
    parked = after.advance(run_id)

    assert (parked.status, after.effects) == ("waiting", [])
    [again] = after.open(run_id)
    assert (again.id != request.id, again.tool) == (True, "pay")
    assert after.decide_all(run_id, "approve").status == "finished"
    assert after.effects == [("pay", 5, "EUR")]
