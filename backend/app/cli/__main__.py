"""`python -m app.cli`: the `pressroom` command without installing the package."""

from app.cli import main

if __name__ == "__main__":  # not in processes that are started by `multiprocessing`
    main()
