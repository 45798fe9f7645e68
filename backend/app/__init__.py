"""Pressroom: a headless blog backend. docs/architecture.md has the layout."""

import gc

__version__ = "0.1.0"

# With the default thresholds, garbage collection takes a quarter of the time of the imports.
gc.set_threshold(50_000, 20, 100)
