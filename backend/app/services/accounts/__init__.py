"""Accounts: login, sessions, second factor, recovery, users, addresses."""
