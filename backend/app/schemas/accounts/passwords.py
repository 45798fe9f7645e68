"""Password fields (OWASP ASVS 6.2: length, no composition rules, no common passwords)."""

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic.config import JsonDict
from pydantic_core import PydanticKnownError

from app.core.config import get_settings

MAX_PASSWORD_LENGTH = 128
COMMON_PASSWORDS = 3000


@lru_cache(maxsize=1)
def _common_passwords(min_length: int) -> frozenset[str]:
    """Return the 3,000 most common passwords of at least `min_length`, in lower case.

    The source is the list of zxcvbn, which is ordered by frequency in leaks.
    """
    from zxcvbn.frequency_lists import (  # noqa: PLC0415 - 0.8 MB, only for new passwords
        FREQUENCY_LISTS,
    )

    long_enough = (word for word in FREQUENCY_LISTS["passwords"] if len(word) >= min_length)
    return frozenset(islice(long_enough, COMMON_PASSWORDS))


def _apply_policy(password: SecretStr) -> SecretStr:
    """Apply PASSWORD_MIN_LENGTH and PASSWORD_REFUSE_COMMON."""
    settings = get_settings()
    minimum = settings.password_min_length
    if len(password.get_secret_value()) < minimum:
        raise PydanticKnownError("string_too_short", {"min_length": minimum})
    if not settings.password_refuse_common:
        return password
    if password.get_secret_value().lower() in _common_passwords(minimum):
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


_without_nul = secret_with_pattern(r"^[^\x00]*$")


def _publish_policy(schema: JsonDict) -> None:
    _without_nul(schema)
    schema["minLength"] = get_settings().password_min_length


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


Password = Annotated[
    SecretStr,
    Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra=_without_nul),
    AfterValidator(_as_text),
]
"""A password at login. It accepts every password that could have been set."""

NewPassword = Annotated[
    SecretStr,
    Field(max_length=MAX_PASSWORD_LENGTH, json_schema_extra=_publish_policy),
    AfterValidator(_as_text),
    AfterValidator(_apply_policy),
]
"""A new password. Its length is checked before it is hashed."""
