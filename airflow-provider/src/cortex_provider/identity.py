"""Where the ID token comes from that says who asks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from cortex_provider import compat
from cortex_provider.errors import NoIdentity, Unavailable
from cortex_provider.run import Run
from cortex_provider.settings import Settings

#: A token, or a client's secret, is at most this large, in bytes.
TOKEN_MAX = 16 << 10
#: The Variables that the API server's issuer answers begin with this.
VARIABLE_PREFIX = "cortex_id_token."


class TokenSource(Protocol):
    """Gives tokens that Cortex takes as the identity of a run."""

    def token(self, run: Run) -> str:
        """A fresh token for `run`; raises `NoIdentity` or `Unavailable`."""

    def claim(self, run: Run) -> Mapping[str, Any] | None:
        """What has to be claimed beside the token, because the token does not name the run."""


class AirflowIssuer:
    """The API server of Airflow 3 vouches for its own running tasks."""

    def __init__(self, audience: str) -> None:
        self._variable = f"{VARIABLE_PREFIX}{audience}"

    def token(self, run: Run) -> str:
        """Asks the API server, which sees by itself which task asks and whether it is running."""
        try:
            token = compat.read_variable(self._variable)
        except NoIdentity as error:
            raise NoIdentity(
                f"the API server gave no ID token: {error} (is the task still running, and is airflow-provider-cortex "
                "installed on the API server? Its log says why)"
            ) from None
        return _checked(token, "the API server")

    def claim(self, run: Run) -> None:
        """Nothing: the token names the run."""


class TokenFile:
    """A file that somebody else keeps fresh: a projected Kubernetes service-account token."""

    def __init__(self, path: str) -> None:
        self._path = path

    def token(self, run: Run) -> str:
        """Reads the file anew."""
        return _checked(_read_file(self._path), self._path)

    def claim(self, run: Run) -> None:
        """Nothing: Cortex asks the cluster which run the pod is."""


class ClientCredentials:
    """A service identity of an identity provider, which claims the run; Cortex asks Airflow whether it is true."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.token_url or ""
        self._client_id = settings.client_id or ""
        self._secret_file = settings.client_secret_file or ""
        self._form = {"grant_type": "client_credentials"}
        if settings.scope:
            self._form["scope"] = settings.scope
        self._timeout = settings.timeout

    def token(self, run: Run) -> str:
        """Asks the identity provider (RFC 6749, section 4.4), with a secret that is read anew each time."""
        secret = _read_file(self._secret_file)
        answer = _post(self._url, self._timeout, data=self._form, auth=(self._client_id, secret))
        return _checked(answer.get("access_token"), self._url)

    def claim(self, run: Run) -> Mapping[str, Any]:
        """The run itself: the token names the service only."""
        return run.claim()


class DevelopmentIssuer:
    """The issuer of `cortex dev`, which signs whatever it is asked to and which nothing else trusts."""

    def __init__(self, url: str, audience: str, timeout: int) -> None:
        self._url = f"{url.rstrip('/')}/token"
        self._audience = audience
        self._timeout = timeout

    def token(self, run: Run) -> str:
        """Has a token signed that says what this process says of itself."""
        answer = _post(self._url, self._timeout, json={"run": run.described(), "audience": self._audience})
        return _checked(answer.get("token"), self._url)

    def claim(self, run: Run) -> None:
        """Nothing: the token names the run."""


def token_source(settings: Settings) -> TokenSource:
    """The source that the settings name."""
    if settings.identity == "file":
        return TokenFile(settings.token_file or "")
    if settings.identity == "client_credentials":
        return ClientCredentials(settings)
    if settings.identity == "development":
        return DevelopmentIssuer(settings.issuer_url or "", settings.audience, settings.timeout)
    return AirflowIssuer(settings.audience)


def _post(
    url: str,
    timeout: float,
    data: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    json: Mapping[str, Any] | None = None,
) -> Mapping[str, Any]:
    try:
        answer = httpx.post(url, timeout=timeout, data=data, auth=auth, json=json, follow_redirects=False)
        value = answer.json() if len(answer.content) <= 4 * TOKEN_MAX else None
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(f"no token from {url}: {type(error).__name__}") from None
    if answer.status_code != httpx.codes.OK or not isinstance(value, dict):
        code = value.get("error") if isinstance(value, dict) else None
        said = f" ({str(code)[:64]})" if isinstance(code, str) else ""
        raise NoIdentity(f"no token from {url}: HTTP {answer.status_code}{said}")
    return value


def _read_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(TOKEN_MAX + 1)
        text = content.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NoIdentity(f"{path} cannot be read: {type(error).__name__}") from None
    if not text or len(content) > TOKEN_MAX:
        raise NoIdentity(f"{path} is empty or too large")
    return text


def _checked(token: object, source: str) -> str:
    """A token that can stand in a header; its signature is Cortex's business."""
    if not isinstance(token, str) or token.count(".") != 2 or len(token) > TOKEN_MAX:
        raise NoIdentity(f"what {source} gave is not a token")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise NoIdentity(f"what {source} gave is not a token")
    compat.mask(token)
    return token
