"""Community: comments, favorites, profiles, reports."""
