"""What this package tells Airflow about itself."""

from __future__ import annotations

from typing import Any

from cortex_provider import __version__


def get_provider_info() -> dict[str, Any]:
    """The provider's description, which Airflow reads through the entry point `apache_airflow_provider`."""
    return {
        "package-name": "airflow-provider-cortex",
        "name": "Cortex",
        "description": "Short-lived credentials for running tasks, from the credential broker Cortex.",
        "versions": [__version__],
        "connection-types": [
            {
                "connection-type": "cortex",
                "hook-class-name": "cortex_provider.hooks.cortex.CortexHook",
            }
        ],
        "secrets-backends": [
            "cortex_provider.secrets.CortexBackend",
            "cortex_provider.issuer.backend.IssuerBackend",
        ],
        "extra-links": ["cortex_provider.links.issuances.CortexIssuancesLink"],
        "config": _config(),
    }


def _option(description: str, kind: str, default: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
    }


def _config() -> dict[str, Any]:
    """The section `[cortex]` of Airflow's configuration; only the API server reads it."""
    return {
        "cortex": {
            "description": "Airflow as the OIDC issuer of its runs.",
            "options": {
                "issuer_key_file": _option(
                    "Where the keys that sign ID tokens are kept. Empty: in `$AIRFLOW_HOME/cortex`. Made on first "
                    "start, readable by its owner only.",
                    "string",
                    "",
                ),
                "issuer_audiences": _option(
                    "The audiences that an ID token may be asked for, separated by commas.", "string", "cortex"
                ),
                "token_lifetime": _option("How long an ID token lives, in seconds; at most 300.", "integer", "300"),
            },
        }
    }
