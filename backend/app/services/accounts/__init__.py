"""Accounts: registration, login, sessions, recovery, API keys, users, addresses, mail delivery."""
