"""The section `[cortex]` of Airflow's configuration, as the issuer reads it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from cortex_provider.issuer.errors import Misconfigured

PREFIX = "/cortex-oidc"
"""Where the issuer is mounted, below the path of `[api] base_url`."""

SECTION = "cortex"
MAX_LIFETIME = 300
MIN_LIFETIME = 30
MAX_AUDIENCES = 20
MAX_AUDIENCE = 255


def issuer_url() -> str:
    """The `iss` of every ID token: `[api] base_url` and the prefix, with one slash between them.

    :raises Misconfigured: without a base URL that clients can reach.
    """
    base = _option("base_url", section="api").rstrip("/")
    url = urlsplit(base)
    plain = url.netloc == url.netloc.lower() and not url.netloc.endswith((":80", ":443")) and "@" not in url.netloc
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or not plain:
        raise Misconfigured(
            "[api] base_url must be the URL at which Cortex reaches this API server, such as "
            f"https://airflow.example.com, in lower case and without a default port: it is {base!r}"
        )
    return base + PREFIX


def audiences() -> frozenset[str]:
    """Whom an ID token may be made for: `[cortex] issuer_audiences`, separated by commas.

    :raises Misconfigured: when there are none, too many, or one has odd characters.
    """
    names = frozenset(name.strip() for name in _option("issuer_audiences", "cortex").split(",") if name.strip())
    if not 1 <= len(names) <= MAX_AUDIENCES:
        raise Misconfigured(f"[cortex] issuer_audiences must name 1 to {MAX_AUDIENCES} audiences")
    for name in names:
        if len(name) > MAX_AUDIENCE or not name.isascii() or not name.isprintable() or " " in name:
            raise Misconfigured(f"[cortex] issuer_audiences has one that is no plain text without blanks: {name!r}")
    return names


def token_lifetime() -> int:
    """How long an ID token lives, in seconds: `[cortex] token_lifetime`.

    :raises Misconfigured: outside of 30 to 300.
    """
    text = _option("token_lifetime", str(MAX_LIFETIME))
    if not text.isdecimal() or not MIN_LIFETIME <= int(text) <= MAX_LIFETIME:
        raise Misconfigured(f"[cortex] token_lifetime is {MIN_LIFETIME} to {MAX_LIFETIME} seconds, not {text!r}")
    return int(text)


def issuer_key() -> str:
    """The keys as PEM text: `[cortex] issuer_key`, or what its `_cmd` or `_secret` gives. Empty when not set."""
    return _option("issuer_key")


def issuer_key_file() -> Path | None:
    """A PEM file with the keys, which somebody else provides: `[cortex] issuer_key_file`. None when not set."""
    path = _option("issuer_key_file")
    return Path(path) if path else None


def issuer_keys_folder() -> Path:
    """Where the issuer keeps keys that it makes itself: `[cortex] issuer_keys_folder`."""
    from airflow.configuration import AIRFLOW_HOME

    path = _option("issuer_keys_folder")
    return Path(path) if path else Path(AIRFLOW_HOME) / "cortex" / "issuer-keys"


def _option(name: str, default: str = "", section: str = SECTION) -> str:
    from airflow.configuration import conf

    return (conf.get(section, name, fallback=default) or default).strip()
