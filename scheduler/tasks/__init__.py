"""Tasks: create, read, list, change, delete."""
