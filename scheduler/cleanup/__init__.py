"""Cleaning up: what has expired is deleted, a little at a time."""
