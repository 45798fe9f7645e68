"""Pages of the area administration."""
