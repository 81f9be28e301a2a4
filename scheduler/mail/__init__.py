"""Mail: what a message says (templates), how it is written down (message) and how it leaves (transport).

Nothing here knows of tasks, people or the database; values come in as plain arguments.
Import from the modules: `scheduler.mail.message`, `.addresses`, `.templates`, `.local_time`, `.transport`.
"""
