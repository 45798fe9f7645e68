"""Markdown, slugs and diffs."""
