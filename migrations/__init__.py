"""Alembic's migrations; `scheduler.schema` runs them."""
