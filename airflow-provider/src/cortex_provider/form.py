"""The form of a connection of type `cortex`, for Airflow 2 and 3 alike."""

from __future__ import annotations

#: The fields of the connection form, each the name of a setting.
FORM = {
    "audience": "Audience of ID tokens",
    "identity": "Identity (airflow, file, client_credentials, development)",
    "token_file": "Token file (identity file)",
    "token_url": "Token endpoint (identity client_credentials)",
    "client_id": "Client id (identity client_credentials)",
    "client_secret_file": "File with the client's secret (identity client_credentials)",
    "issuer_url": "Development issuer (identity development)",
    "ca_file": "Certificates that vouch for Cortex",
}

HIDDEN = ["schema", "port", "login", "password"]
RELABELING = {"host": "Address of Cortex"}
PLACEHOLDERS = {"host": "https://cortex.example.com"}
