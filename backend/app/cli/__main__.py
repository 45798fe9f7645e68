"""`python -m app.cli`: the `pressroom` command without installing the package."""

from app.cli import main

main()
