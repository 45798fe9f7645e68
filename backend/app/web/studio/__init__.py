"""Pages of the area studio."""
