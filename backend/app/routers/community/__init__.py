"""Routes of the community."""
