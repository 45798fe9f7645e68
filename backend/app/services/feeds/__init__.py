"""Feeds: what has been published last, for feed readers and search engines."""
