"""Feeds and sitemaps of published articles."""
