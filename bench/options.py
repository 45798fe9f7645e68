"""Command-line options of several benchmarks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from servers import BENCH_DIR


@dataclass(frozen=True)
class Options:
    """The command line."""

    rounds: int
    seconds: int
    connections: int
    quick: bool
    note: str
    output: Path
    former: str


def parse_options(
    arguments: Sequence[str],
    *,
    what: str,
    full: tuple[int, int],
    quick: tuple[int, int],
    former: str = "",
) -> Options:
    """Parse the command line. `full` and `quick` are default rounds and seconds per measurement.

    `former` is the default of `--former`.
    """
    parser = argparse.ArgumentParser(prog="bench/run.py", description=what)
    parser.add_argument(
        "--rounds", type=int, help=f"rounds (default {full[0]}; {quick[0]} with --quick)"
    )
    parser.add_argument(
        "--seconds",
        type=int,
        help=f"seconds for each measurement (default {full[1]}; {quick[1]} with --quick)",
    )
    parser.add_argument("--connections", type=int, default=32, help="for the reads (default 32)")
    parser.add_argument("--quick", action="store_true", help="a minute or two; writes no file")
    parser.add_argument("--note", default="", help="a note for the results, such as other load")
    parser.add_argument(
        "--output", type=Path, default=BENCH_DIR / "RESULTS.md", help="default bench/RESULTS.md"
    )
    parser.add_argument(
        "--former", default=former, help="a commit to compare with, where supported"
    )
    parsed = parser.parse_args(arguments)
    defaults = quick if parsed.quick else full
    rounds, seconds = parsed.rounds or defaults[0], parsed.seconds or defaults[1]
    if min(rounds, seconds, parsed.connections) < 1:
        parser.error("rounds, seconds and connections must be positive")
    return Options(
        rounds,
        seconds,
        parsed.connections,
        parsed.quick,
        parsed.note,
        parsed.output,
        parsed.former,
    )
