"""Everything that differs between Airflow 2 and 3, and nothing else."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cortex_provider.errors import NoIdentity, NotConfigured

if TYPE_CHECKING:
    from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, Connection, Variable
    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
    from airflow.sdk.definitions.context import Context
    from airflow.sdk.exceptions import AirflowFailException, AirflowSecretsBackendAccessDenied

    AIRFLOW_3 = True
    AccessDenied = AirflowSecretsBackendAccessDenied
else:
    Context = Mapping
    try:
        from airflow.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator, Connection, Variable
        from airflow.sdk.bases.secrets_backend import BaseSecretsBackend
        from airflow.sdk.exceptions import AirflowFailException

        AIRFLOW_3 = True
    except ImportError:
        from airflow.exceptions import AirflowFailException
        from airflow.hooks.base import BaseHook
        from airflow.models import BaseOperator, BaseOperatorLink, Connection, Variable
        from airflow.secrets import BaseSecretsBackend
        from airflow.sensors.base import BaseSensorOperator

        AIRFLOW_3 = False
    try:
        from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied as AccessDenied
    except ImportError:

        class AccessDenied(BaseException):
            """A refusal that must not be tried elsewhere.

            Airflows before 3.2.2 catch every `Exception` of a secrets backend and go on to the next one, and some
            hooks end at the machine's own credentials. They do let a `BaseException` through, and fail the task
            with its sentence.
            """


def _masker() -> Callable[[str], None]:
    for module in ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker"):
        try:
            found: Callable[[str], None] = importlib.import_module(module).mask_secret
        except (ImportError, AttributeError):
            continue
        return found
    raise ImportError("this Airflow has no secrets masker")


_mask_secret = _masker()

#: A signed token: its last part is the signature, of 256 bits or more.
_SIGNED = re.compile(r"[\w-]+\.[\w-]+\.([\w-]{43,})\Z", re.ASCII)
#: How many characters at the end of a signature are masked: 384 bits, which nobody guesses.
SIGNATURE_END = 64

__all__ = [
    "AIRFLOW_3",
    "AccessDenied",
    "AirflowFailException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSecretsBackend",
    "BaseSensorOperator",
    "Connection",
    "Context",
    "configuration",
    "current_context",
    "log_context",
    "mask",
    "read_variable",
]


def mask(*secrets: str | None) -> None:
    """Registers secrets with Airflow's masker, in this process and, where there is one, in its supervisor.

    Of a signed token only the end of its signature, without which it is none. The masker forgets nothing, and compiles
    every character that it knows anew with each secret, so a task that renews for hours has to be sparing.
    """
    for secret in secrets:
        if secret:
            signed = _SIGNED.match(secret)
            _mask_secret(signed[1][-SIGNATURE_END:] if signed else secret)


def current_context() -> Mapping[str, Any] | None:
    """The context of the task that this process executes; None outside `execute` and template rendering."""
    module = "airflow.sdk" if AIRFLOW_3 else "airflow.operators.python"
    get_current_context: Callable[[], Mapping[str, Any]] = importlib.import_module(module).get_current_context
    try:
        return get_current_context()
    # Airflow 2 raises AirflowException, Airflow 3 RuntimeError, and both mean that there is none.
    except Exception:
        return None


def log_context() -> Mapping[str, Any]:
    """What Airflow 3 binds to each log line of a task or a trigger; empty on Airflow 2."""
    try:
        from structlog.contextvars import get_contextvars
    except ImportError:
        return {}
    return get_contextvars()


def read_variable(key: str) -> str:
    """Reads an Airflow Variable with the identity of the running task, from any thread.

    Raises `NoIdentity` with the reason where there is none; the Variable of an ID token always has one.
    """
    try:
        value = Variable.get(key)
    except (Exception, AccessDenied) as error:
        raise NoIdentity(str(error) or type(error).__name__) from None
    if not isinstance(value, str):
        raise NoIdentity(f"the Variable {key} is not a text")
    return value


def configuration(section: str, key: str) -> str | None:
    """One value of Airflow's configuration, None where it is empty or missing."""
    module = importlib.import_module("airflow.sdk.configuration" if AIRFLOW_3 else "airflow.configuration")
    try:
        value = module.conf.get(section, key, fallback=None)
    except Exception as error:
        raise NotConfigured(f"Airflow's configuration has no readable [{section}] {key}: {error}") from None
    return value or None
