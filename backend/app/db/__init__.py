"""The database: declarative base, connection pools, units of work and an embedded PostgreSQL."""
