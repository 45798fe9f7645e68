"""Background jobs of the server: mail delivery, rendering, deletion of expired rows and files."""
