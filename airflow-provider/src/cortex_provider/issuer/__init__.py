"""Airflow's API server as the OIDC issuer of its running tasks.

The plugin publishes discovery and keys under `{[api] base_url}/cortex-oidc`, and answers a running task that asks the
Execution API for the variable `cortex_id_token.<audience>` with a signed ID token. Read in this order: `plugin` (what
Airflow loads), `endpoint` (the way of a request), `caller` (who asks), `runs` (what the database says of it), `tokens`
(what is signed), `keys` and `folder` (with what).
"""
