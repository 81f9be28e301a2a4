"""Deliveries: what went out, what was skipped and why, what comes next."""
