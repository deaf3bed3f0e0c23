"""What is signed, and what is too much."""

from __future__ import annotations

import jwt
import pytest

from cortex_provider.issuer.errors import Refused
from cortex_provider.issuer.keys import KeyRing
from cortex_provider.issuer.tokens import MAX_TOKEN, sign, subject

RUN = {"dag_id": "finance", "task_id": "publish"}


def test_the_claims(keys: KeyRing) -> None:
    key = keys.current().signing
    token = sign(key, "https://a.example/cortex-oidc", "cortex", RUN, 1_000, 60)
    claims = jwt.decode(token.encoded, options={"verify_signature": False})
    assert claims == {
        "iss": "https://a.example/cortex-oidc",
        "sub": "airflow:dag:finance:task:publish",
        "aud": "cortex",
        "iat": 1_000,
        "nbf": 1_000,
        "exp": 1_060,
        "jti": token.jti,
        "airflow": RUN,
    }
    assert jwt.get_unverified_header(token.encoded) == {"alg": "RS256", "typ": "JWT", "kid": key.kid}


def test_a_token_does_not_show_in_its_repr(keys: KeyRing) -> None:
    token = sign(keys.current().signing, "i", "a", RUN, 0, 60)
    assert token.encoded not in repr(token)
    assert "private" not in repr(keys.current())


def test_a_long_subject_is_a_digest() -> None:
    longest = subject("d" * 200, "t" * (255 - 200 - len("airflow:dag::task:")))
    assert len(longest) == 255
    assert longest.startswith("airflow:dag:d")
    one, other = (subject("d" * 250, f"{'t' * 249}{end}") for end in "ab")
    assert one.startswith("airflow:sha256:")
    assert len(one) <= 255
    assert one != other


def test_a_token_is_never_longer_than_cortex_accepts(keys: KeyRing) -> None:
    key = keys.current().signing
    # A third more in base64.
    fits = {**RUN, "tags": ["t" * 1000] * (MAX_TOKEN * 3 // 4 // 1010)}
    assert len(sign(key, "i", "a", {**RUN, "tags": fits["tags"][:-1]}, 0, 60).encoded) <= MAX_TOKEN
    with pytest.raises(Refused, match="longer than"):
        sign(key, "i", "a", {**RUN, "tags": [*fits["tags"], "t" * 1000]}, 0, 60)
