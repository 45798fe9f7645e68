"""Chromium, which tests with a browser start."""

import shutil

import pytest

BROWSERS = (
    # Without the windows of Chromium, it takes half the CPU time.
    "chromium-headless-shell",
    "chromium",
    "google-chrome",
    "google-chrome-stable",
    "chromium-browser",
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def find_browser() -> str | None:
    """Return the path of an installed browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def require_browser() -> str:
    """Return the path of an installed browser. Skips the test if there is none."""
    executable = find_browser()
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is in PATH")
    return executable
