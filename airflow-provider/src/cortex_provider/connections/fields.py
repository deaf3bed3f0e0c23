"""What a builder says of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex_provider.client import Credential
from cortex_provider.renewal.registry import Renewal
from cortex_provider.settings import ConnectionRule


@dataclass(frozen=True)
class Fields:
    """A connection's fields. Its secrets do not show in its `repr`."""

    conn_type: str
    host: str | None = None
    schema: str | None = None
    login: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    #: Extras that the rule of the connection may change.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    #: Extras that carry the credential.
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


Builder = Callable[[Credential, ConnectionRule, Renewal], Fields]
