"""Background jobs of the server: mail delivery and housekeeping."""
