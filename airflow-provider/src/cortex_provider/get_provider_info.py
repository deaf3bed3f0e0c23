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
                "issuer_key": {
                    **_option(
                        "The keys that sign ID tokens, as PEM text: the first signs, all are published. Use "
                        "`issuer_key_cmd` or `issuer_key_secret` to keep them out of the configuration.",
                        "string",
                        "",
                    ),
                    "sensitive": True,
                },
                "issuer_key_file": _option(
                    "A PEM file with the keys, such as a mounted secret: the first signs, all are published.",
                    "string",
                    "",
                ),
                "issuer_keys_folder": _option(
                    "Where the issuer makes its own keys when neither of the two above is set; all API servers must "
                    "share it. Empty: `$AIRFLOW_HOME/cortex/issuer-keys`.",
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
