"""Faults: what is killed, flushed, cut or away must not lose a reminder."""
