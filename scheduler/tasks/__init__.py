"""Tasks: create, read, list, change, assign, share, delete."""
