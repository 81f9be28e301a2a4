"""Processes and how they end: the embedded Redis, `punctual up`, the pool behind `punctual web`, and the
lifelines.

Nothing here imports a door (`web`, `jobs`): what runs in a child is named by a command line, which
`punctual.py` answers. Everything here is plain, blocking, single-threaded code with light imports: a
supervisor must start at once, and must never be busy with something else when a child dies.
"""
