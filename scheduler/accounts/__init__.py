"""Accounts: sign-up, sign-in, tokens, profiles."""
