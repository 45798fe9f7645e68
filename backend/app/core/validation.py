"""Messages of validation errors: sentences, in place of the regular expressions of patterns."""

import re
from collections.abc import Mapping
from typing import Any

_ENUM_MEMBER = re.compile(r"<\w+\.\w+: ('[^']*')>")
PATTERN_MESSAGES: dict[str, str] = {}
"""The message of each pattern, without the subject."""
_OTHER_PATTERN = "contains characters that are not allowed here"
_MESSAGES: Mapping[str, str] = {
    "dict_type": "Input should be an object",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
    "string_unicode": "String should be valid Unicode text",
}
"""Messages for types of errors whose message by Pydantic uses terms of Python."""


def pattern(expression: str, message: str) -> str:
    """Return `expression`, a pattern of a field; errors show `message`, such as "should be …"."""
    PATTERN_MESSAGES[expression] = message
    return expression


def validation_message(error: Mapping[str, Any]) -> str:
    """Return the message of a Pydantic error for people. It contains no regular expressions."""
    kind, message = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return f"String {PATTERN_MESSAGES.get(error['ctx']['pattern'], _OTHER_PATTERN)}"
    if kind in {"too_short", "too_long"}:
        counted = message.replace(" after validation", "")
        # The value is a SecretStr.
        return counted.replace(" item", " character") if counted.startswith("Value") else counted
    if kind == "literal_error":
        return _ENUM_MEMBER.sub(r"\1", message)
    if kind == "json_invalid":
        return f"{message}: {error['ctx']['error']}"
    return _MESSAGES.get(kind, message)
