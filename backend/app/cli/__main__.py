"""`python -m app.cli`: the `pressroom` command where it is not installed."""

from app.cli import main

main()
