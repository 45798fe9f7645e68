"""A strict parser for JSON that clients send."""

from functools import partial
from json import JSONDecodeError, loads
from typing import Any, NoReturn

MAX_MEMBERS = 100
"""Maximum members of a JSON object. Each unknown member would add an entry to the error."""


def parse_json(document: bytes, *, max_members: int = MAX_MEMBERS) -> Any:
    """Return the value of a JSON document that RFC 8259 defines unambiguously.

    Raises JSONDecodeError for invalid UTF-8, invalid JSON, NaN and Infinity, numbers with thousands
    of digits, too deep nesting, duplicate names, and objects with over `max_members` members.
    Schemas reject lone surrogates in strings. Callers limit the size of the document.
    """
    try:
        return loads(
            document.decode(),
            object_pairs_hook=partial(_object_without_duplicates, max_members),
            parse_constant=_reject_constant,
        )
    except JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise JSONDecodeError("The text is not UTF-8", "", error.start) from error
    except RecursionError as error:
        raise JSONDecodeError("The nesting is too deep", "", 0) from error
    except ValueError as error:
        raise JSONDecodeError(str(error), "", 0) from error


def _object_without_duplicates(max_members: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > max_members:
        raise ValueError(f"An object has more than {max_members} members")
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("An object has duplicate names")
    return parsed


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
