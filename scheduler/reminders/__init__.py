"""Reminders: their times, their rows, and the job that makes them go out."""
