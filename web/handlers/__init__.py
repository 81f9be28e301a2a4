"""Handlers: thin. A validated schema → one service call → a row → the answer's dictionary. One file a
noun."""

from __future__ import annotations

from web.handlers import (
    act,
    administration,
    auth,
    deliveries,
    documentation,
    emails,
    health,
    jobs,
    logs,
    metrics,
    reminders,
    runs,
    schedules,
    tasks,
    users,
)

ROUTE_TABLES = (
    auth.route,
    users.route,
    tasks.route,
    reminders.route,
    deliveries.route,
    schedules.route,
    runs.route,
    runs.admin_route,
    jobs.route,
    logs.route,
    administration.route,
    emails.route,
    health.route,
    metrics.route,
    documentation.route,
    documentation.api_route,
    act.route,
)
"""Every route of the service, in the order of the OpenAPI document."""
