"""The base class of all errors. `errors.py` has the class of each code."""

import email.utils
import time
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

_CLASSES: dict[str, tuple[type["PressroomError"], type[BaseModel]]] = {}


class PressroomError(Exception):
    """A response that is not successful.

    `code` is stable, and `unknown` if the response is not an error of the API, for example one of a
    proxy. Catch the classes of `errors` to handle single codes.
    """

    code: str = "unknown"
    body: Any = None

    def __init__(self, response: httpx.Response, message: str) -> None:
        super().__init__(message)
        self.response = response
        self.status = response.status_code

    @property
    def request_id(self) -> str | None:
        """The identifier under which the server has logged the request."""
        value: str | None = self.response.headers.get("X-Request-ID")
        return value

    @property
    def retry_after(self) -> float | None:
        """After how many seconds another attempt may succeed, if the server knows it."""
        value = self.response.headers.get("Retry-After")
        if value is None:
            return None
        if value.isdecimal():
            return float(value)
        try:  # a date (RFC 9110 §10.2.3)
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
        except ValueError:
            return None


def register(error: type[PressroomError], body: type[BaseModel]) -> None:
    """Raise `error` for responses with its code, whose body is a `body`."""
    _CLASSES[error.code] = (error, body)


def error_of(response: httpx.Response) -> PressroomError:
    """Return the error of an unsuccessful response, which has been read."""
    try:
        fields = response.json()
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("code"), str):
        return PressroomError(response, f"HTTP {response.status_code}")
    message = str(fields.get("message", f"HTTP {response.status_code}"))
    kind, model = _CLASSES.get(fields["code"], (PressroomError, None))
    error = kind(response, message)
    error.code, error.body = fields["code"], fields
    if model is not None:
        try:
            error.body = model.model_validate(fields)
        except ValidationError:  # of a newer server: the fields stay a dictionary
            return PressroomError(response, message)
    return error
