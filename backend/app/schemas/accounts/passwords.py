"""Password fields (OWASP ASVS 6.2: length, no composition rules, no common passwords)."""

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SecretStr
from pydantic.config import JsonDict

MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 128
COMMON_PASSWORDS = 3000


@lru_cache(maxsize=1)
def _common_passwords() -> frozenset[str]:
    """Return the 3,000 most common passwords of at least the minimum length, in lower case.

    The source is the list of zxcvbn, which is ordered by frequency in leaks.
    """
    from zxcvbn.frequency_lists import (  # noqa: PLC0415 - 0.8 MB, only for new passwords
        FREQUENCY_LISTS,
    )

    long_enough = (
        word for word in FREQUENCY_LISTS["passwords"] if len(word) >= MIN_PASSWORD_LENGTH
    )
    return frozenset(islice(long_enough, COMMON_PASSWORDS))


def _refuse_common(password: SecretStr) -> SecretStr:
    if password.get_secret_value().lower() in _common_passwords():
        raise ValueError("is one of the most common passwords; choose another")
    return password


def secret_with_pattern(pattern: str) -> Callable[[JsonDict], None]:
    """Return a function that adds a pattern to the OpenAPI schema of a SecretStr.

    It removes `writeOnly`, for which generators create a second type of each request.
    """

    def change(schema: JsonDict) -> None:
        schema["pattern"] = pattern
        schema.pop("writeOnly", None)

    return change


def _as_text(password: SecretStr) -> SecretStr:
    """Normalize to Unicode form C (RFC 8265 §4.2), so that all encodings of `é` are equal."""
    text = password.get_secret_value()
    if "\0" in text or not _is_unicode(text):
        raise ValueError("must be Unicode text without NUL")
    return SecretStr(unicodedata.normalize("NFC", text))


def _is_unicode(text: str) -> bool:
    """Return whether there is no lone surrogate, which SecretStr accepts in contrast to str."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _length(minimum: int) -> Any:
    """Return length limits in characters, and the pattern for OpenAPI, which forbids NUL."""
    return Field(
        min_length=minimum,
        max_length=MAX_PASSWORD_LENGTH,
        json_schema_extra=secret_with_pattern(r"^[^\x00]*$"),
    )


Password = Annotated[SecretStr, _length(1), AfterValidator(_as_text)]
"""A password at login. It accepts every password that could have been set."""

NewPassword = Annotated[
    SecretStr,
    _length(MIN_PASSWORD_LENGTH),
    AfterValidator(_as_text),
    AfterValidator(_refuse_common),
]
"""A new password. Its length is checked before it is hashed."""
