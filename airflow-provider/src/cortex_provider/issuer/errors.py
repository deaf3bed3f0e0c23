"""Why no ID token is given."""

from __future__ import annotations


class Refused(Exception):
    """The caller gets no ID token. The message says why, and holds no secret: it is answered and logged."""


class Misconfigured(Exception):
    """The issuer cannot work as it is configured. The message names the option and the remedy."""
