"""What Airflow's masker is given, counted: it keeps all of it for the life of the task."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from cortex_provider import compat
from cortex_provider.compat import AIRFLOW_3, SIGNATURE_END, mask

#: A task of 12 hours with credentials of 15 minutes: renewals of four targets, each with an ID token.
TOKENS = 48 * 5


@pytest.fixture
def masker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Airflow's module, with a masker that knows nothing yet."""
    module = import_module("airflow.sdk._shared.secrets_masker" if AIRFLOW_3 else "airflow.utils.log.secrets_masker")
    known = module._secrets_masker()
    monkeypatch.setattr(known, "patterns", set())
    monkeypatch.setattr(known, "replacer", None)
    yield module


def signed(signature_octets: int = 256) -> str:
    return f"{secrets.token_urlsafe(40)}.{secrets.token_urlsafe(700)}.{secrets.token_urlsafe(signature_octets)}"


def test_what_a_long_task_leaves_in_the_masker_is_bounded(masker: Any) -> None:
    for _ in range(TOKENS):
        mask(signed())
    known = masker._secrets_masker().patterns
    assert len(known) == TOKENS
    # A hyphen takes a backslash in a pattern.
    assert sum(len(pattern.replace("\\", "")) for pattern in known) == TOKENS * SIGNATURE_END


@pytest.mark.parametrize("octets", [32, 64, 256, 512], ids=["HS256", "ES256", "RS256", "RS4096"])
def test_no_log_line_holds_a_usable_token(masker: Any, octets: int) -> None:
    token = signed(octets)
    mask(token)
    end = token.rpartition(".")[2][-SIGNATURE_END:]
    for line in (token, f"Authorization: Bearer {token}", f"https://host/?token={token}&x=1", f"…{token[-100:]}"):
        redacted = masker.redact(line)
        assert "***" in redacted
        assert end not in redacted


@pytest.mark.parametrize("secret", ["sandbox/" + "k" * 40, "ya29." + "g" * 900, "header.payload.signature"])
def test_everything_else_is_masked_whole(masker: Any, secret: str) -> None:
    mask(secret)
    assert masker.redact(f"<{secret}>") == "<***>"


def test_nothing_is_masked_for_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(compat, "_mask_secret", given.append)
    mask(None, "", "a secret")
    assert given == ["a secret"]
