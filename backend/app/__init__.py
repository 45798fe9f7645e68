"""Pressroom: a headless blog backend. docs/architecture.md has the layout."""

import gc

__version__ = "0.1.0"

# With the default thresholds, the imports take up to a quarter more CPU time.
gc.set_threshold(50_000, 20, 100)
