"""The database: declarative base, engines and units of work, and PostgreSQL without Docker."""
