"""Schedules: cron as data; the rules of cron, the rows, and the firing of what is due."""
