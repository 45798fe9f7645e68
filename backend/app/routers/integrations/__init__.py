"""Routes for agents and other programs that connect to the blog."""
