"""Numbers with their nouns, for messages."""

from collections.abc import Iterable


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 key`, `2 keys`. By default, the plural ends with `s`."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def listed(counts: Iterable[tuple[str, int]]) -> str:
    """Return kinds in the plural with their numbers, without those of 0: `pages: 1, tags: 2`."""
    return ", ".join(f"{kind}: {count}" for kind, count in counts if count)
