"""The policy that stands: what an administrator uploaded last, else the file of this process, else the settings alone.

An upload is a statement signed by the gateway, as a decision is. One that cannot be verified or read, an altered one,
or one that is older than what this process has seen, is never used, and neither is the one before it: nobody here can
know what was meant. Until it is put right every call is asked at the highest tier that can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from banksman import reach, rule_file, suspicion
from banksman.digest import Json
from banksman.errors import BanksmanError, ConfigurationError, NotGenuine
from banksman.policy import Call, Judgement, Policy
from banksman.records import Person, Requirement
from banksman.rules import Rules
from banksman.settings import PolicySettings
from banksman.signing import Signed, Verifier
from banksman.states import Tier

REFUSED = "refused"
"""What a requirement names as its policy while the one in force cannot be used."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What rules there are at a moment; `doubt` says why those in force cannot be used."""

    rules: Rules | None = None
    doubt: str | None = None
    people: Sequence[Person] = ()

    def judge(self, call: Call, otherwise: Judgement) -> Judgement:
        """What the rules say, what is said without any, or that a person must look because they are in doubt."""
        if self.doubt is not None:
            because = f"The policy in force cannot be used: {self.doubt} Until it is put right every call is asked."
            base = otherwise.requirement or Requirement()
            asked = replace(base, policy=REFUSED, rule="policy-refused", because=because)
            return Judgement("ask", asked.rule, because, reach.highest(asked, self.people, call.requester))
        judged = otherwise if self.rules is None else self.rules.judge(call, otherwise, self.people)
        return self._raised(judged, call)

    def _raised(self, judged: Judgement, call: Call) -> Judgement:
        """Whatever is asked about text that could deceive is asked at the highest tier that its groups can reach."""
        asked = judged.requirement
        if judged.verdict != "ask" or asked is None:
            return judged
        signs = [*call.signs, *suspicion.of_files(call.files)]
        if not signs:
            return judged
        # Of its own groups alone: no agent gets rid of the people that a rule names by hiding something in its call.
        found = reach.raised(asked, self.people, call.requester) or reach.at_least(asked, Tier.HIGH)
        how = "Raised to" if found.tier is not asked.tier else "At"
        because = f"{how} tier {found.tier.value}: {suspicion.in_words(signs)}. {judged.because}"
        return replace(judged, because=because, requirement=replace(found, because=because))


def statement(number: int, text: str, *, author: str, at: datetime) -> Mapping[str, Json]:
    """What the gateway signs of a version."""
    return {"v": 1, "version": number, "text": text, "by": author, "at": at.isoformat(timespec="seconds")}


def verified(number: int, signed: Signed, verifier: Verifier) -> tuple[Rules, str]:
    """The rules and the text of a version, once its signature holds and it is what its row says."""
    said = verifier.verify(signed, "policy")
    if said.get("version") != number:
        raise NotGenuine(f"What is stored as version {number} of the policy was signed as another one.")
    text = str(said["text"])
    return replace(rule_file.read(text, f"policy version {number}"), version=f"v{number}"), text


def of_settings(settings: PolicySettings) -> Policy:
    """What holds beneath the rules."""
    return Policy(
        allow_tools=settings.allow_tools,
        allow_writes_below=settings.allow_writes_below,
        expires_after=int(settings.deadline_hours * 3600),
        tiers=settings.tiers,
    )


def of_file(path: str) -> Rules | None:
    """The rules of the file that a setting names; None where it names none. A wrong one stops the start-up."""
    if not path:
        return None
    try:
        rules = rule_file.read_path(Path(path))
    except BanksmanError as error:
        raise ConfigurationError(f"BANKSMAN_POLICY: {error}") from None
    return replace(rules, version=f"file {sha256(rules.text.encode()).hexdigest()[:12]}")
