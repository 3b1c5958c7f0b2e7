"""Fixtures of the integration tests."""

from tests.integration.pgrig import database, database_url, postgres

__all__ = ["database", "database_url", "postgres"]
