"""Cortex for Apache Airflow: every task has an identity, and its connections hold credentials that live for minutes."""

from __future__ import annotations

__version__ = "0.1.0"
