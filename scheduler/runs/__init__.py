"""Runs: the record of every time a job did something."""
