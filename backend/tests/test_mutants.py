"""The mutants of `make mutants` can be applied, and the tests that they name exist."""

import re
import tomllib
from collections import Counter
from functools import cache
from itertools import chain
from pathlib import Path

from app.core.config import BACKEND_DIR

FILES = sorted((BACKEND_DIR / "tests" / "mutants").glob("*.toml"))
MUTANTS = list(chain.from_iterable(tomllib.loads(file.read_text()).items() for file in FILES))


def test_names_are_unique() -> None:
    assert len(MUTANTS) >= 60
    assert max(Counter(name for name, _ in MUTANTS).values()) == 1


def test_faults_can_be_applied_and_their_tests_exist() -> None:
    read, problems = cache(Path.read_text), []
    for name, mutant in MUTANTS:
        source = read(BACKEND_DIR / "app" / mutant["file"])
        if source.count(mutant["old"]) != 1:
            problems.append(f"{name}: `old` occurs {source.count(mutant['old'])} times")
        file, *classes, function = mutant["test"].partition("[")[0].split("::")
        names = [f"class {each}" for each in classes] + [rf"(async )?def {function}\("]
        pattern = r"(?ms)^" + r"\b.*\n\s*".join(names)
        if re.search(pattern, read(BACKEND_DIR / "tests" / file)) is None:
            problems.append(f"{name}: there is no test {mutant['test']}")
    assert not problems
