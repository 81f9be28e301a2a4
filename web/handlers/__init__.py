"""Handlers: thin. A validated schema → one service call → a row → the answer's dictionary. One file a
noun."""

from __future__ import annotations

from web.handlers import act, auth, deliveries, documentation, health, reminders, runs, tasks, users

ROUTE_TABLES = (
    auth.route,
    users.route,
    tasks.route,
    reminders.route,
    deliveries.route,
    runs.route,
    health.route,
    documentation.route,
    documentation.api_route,
    act.route,
)
"""Every route of the service, in the order of the OpenAPI document."""
