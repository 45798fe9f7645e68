"""Pages of the area reader."""
