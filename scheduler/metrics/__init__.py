"""Numbers for operators, as Prometheus reads them.

What workers count is added up in the database (`counters`), as they have no HTTP port; the web's `/metrics` shows it,
what the database says of the present (`service`), and what is true of the process that answers (`process`).
"""
