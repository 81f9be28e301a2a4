"""Rules are functions of values: no database, no server, no clock."""

from __future__ import annotations

from hypothesis import settings

# Two cores and other tests beside: how long one example takes says nothing.
settings.register_profile("rules", deadline=None)
settings.load_profile("rules")
