"""Limits in settings: a name and a number each."""

from __future__ import annotations

import pytest

from banksman import settings
from banksman.errors import ConfigurationError

URLS = {"BANKSMAN_DATABASE_URL": "postgresql://db/x", "BANKSMAN_BROKER_URL": "redis://broker/0"}


@pytest.mark.parametrize("wrong", ["refunds", "refunds=0", "refunds=-1", "=3", "a=1,a=2", "a=1.5"])
def test_a_limit_is_a_name_and_a_number(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (URLS | {"BANKSMAN_AGENTS": "a:b", "BANKSMAN_VERIFY_KEYS": "k"}).items():
        monkeypatch.setenv(name, value)

    monkeypatch.setenv("BANKSMAN_MAX_RUNNING", "refunds=20, openai:gpt-4.1=50")
    read = settings.read(settings.WorkerSettings).max_running
    monkeypatch.setenv("BANKSMAN_MAX_RUNNING", wrong)
    with pytest.raises(ConfigurationError, match="BANKSMAN_MAX_RUNNING"):
        settings.read(settings.WorkerSettings)

    assert read == {"refunds": 20, "openai:gpt-4.1": 50}
