"""Submitted forms: their values, and their errors beside the fields."""

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from app.core import errors as catalogue
from app.core.errors import PressroomError
from app.web.localization import gettext
from app.web.validation import message_of

WHOLE = ""
"""The name under which errors of the whole form are stored."""
FIELDS: Mapping[type[PressroomError], tuple[str, ...]] = {
    catalogue.EmailTaken: ("email",),
    catalogue.UsernameTaken: ("username",),
    catalogue.SlugTaken: ("slug",),
    catalogue.IncorrectPassword: ("password", "current_password"),
    catalogue.PasswordRequired: ("current_password",),
    catalogue.IncorrectCode: ("code",),
    catalogue.InvalidCode: ("code",),
    catalogue.InvalidAccountToken: ("token",),
    catalogue.ContentTooComplex: ("content",),
    catalogue.InvalidMedia: ("file", "picture"),
}
"""Fields of forms that errors of the catalogue belong to: the first that the form has."""
SECRET_FIELDS = frozenset(
    {
        "challenge",
        "code",
        "csrf_token",
        "current_password",
        "new_password",
        "password",
        "secret",
        "token",
    }
)
"""Fields whose values no page shows again."""

Schema = TypeVar("Schema", bound=BaseModel)


class FormError(Exception):
    """Messages beside the fields of a form, or one message for the whole form."""

    def __init__(self, message: str | None = None, **fields: str) -> None:
        """`fields` has the message of each field."""
        super().__init__(message or "; ".join(fields.values()))
        self.messages = {**fields, **({WHOLE: message} if message else {})}


class Form:
    """A submitted form, or an empty one.

    `errors` has the messages by field. `error` is the error of the catalogue, if there is one.
    """

    def __init__(self, data: FormData | None = None) -> None:
        self._data = data or FormData()
        self.is_submitted = data is not None
        self.errors: dict[str, list[str]] = {}
        self.error: PressroomError | None = None

    def text(self, name: str, default: str = "") -> str:
        """Return the text of a field. Line breaks are single, as in the service's texts."""
        value = self._data.get(name, default)
        return value.replace("\r\n", "\n") if isinstance(value, str) else default

    def list(self, name: str) -> list[str]:
        """Return all values of a repeated field."""
        return [value for value in self._data.getlist(name) if isinstance(value, str)]

    def flag(self, name: str) -> bool:
        """Return whether a checkbox is checked."""
        return name in self._data

    def file(self, name: str) -> UploadFile | None:
        """Return an uploaded file; None if none was chosen."""
        value = self._data.get(name)
        return value if isinstance(value, UploadFile) and value.filename else None

    def number(self, name: str) -> int | None:
        """Return an integer; None if the field is empty or not a number."""
        value = self.text(name).strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None

    def value(self, name: str, default: Any = "") -> Any:
        """Return what a field shows: the submitted text, except of secrets, or `default`."""
        if self.is_submitted and name in self._data and name not in SECRET_FIELDS:
            return self.text(name)
        return "" if default is None else default

    def is_checked(self, name: str, default: bool = False) -> bool:
        """Return whether a checkbox is shown as checked."""
        return self.flag(name) if self.is_submitted else default

    def repeatable(self) -> Iterable[tuple[str, str]]:
        """Yield the fields that a page may send again: all texts that are no secrets."""
        for name, value in self._data.multi_items():
            if isinstance(value, str) and name not in SECRET_FIELDS:
                yield name, value

    def read(
        self, schema: type[Schema], fields: Iterable[str] | None = None, **overrides: Any
    ) -> Schema:
        """Return an instance of `schema` with the submitted fields.

        `fields` restricts them. `overrides` replace submitted values. An empty text is omitted
        where the schema accepts None. Raises pydantic.ValidationError.
        """
        values: dict[str, Any] = {}
        for name in fields or schema.model_fields:
            if name not in self._data:
                continue
            kind = schema.model_fields[name].annotation
            if _is_list(kind):
                values[name] = self.list(name)
            elif self.text(name) == "" and _accepts_none(kind):
                values[name] = None
            else:
                values[name] = self.text(name)
        return schema.model_validate({**values, **overrides})

    def refuse(self, error: Exception) -> None:
        """Add the messages of an error."""
        match error:
            case FormError():
                for name, message in error.messages.items():
                    self.errors.setdefault(name, []).append(message)
            case ValidationError():
                for each in error.errors():
                    name = str(each["loc"][0]) if each["loc"] else WHOLE
                    self.errors.setdefault(name, []).append(message_of(each))
            case PressroomError():
                self.error = error
                names = next((FIELDS[kind] for kind in type(error).__mro__ if kind in FIELDS), ())
                self._add(next((name for name in names if name in self._data), WHOLE), str(error))

    def _add(self, name: str, message: str) -> None:
        self.errors.setdefault(name, []).append(gettext(message))


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)


def _accepts_none(kind: Any) -> bool:
    return type(None) in _alternatives(kind)


def _is_list(kind: Any) -> bool:
    return any(get_origin(each) is list or each is list for each in _alternatives(kind))


def form_of(request: Request) -> Form:
    """Return the submitted form of a request; an empty one for a GET request."""
    form = getattr(request.state, "form", None)
    return form if isinstance(form, Form) else Form()


async def _submitted(request: Request) -> Form:
    return form_of(request)


SubmittedForm = Annotated[Form, Depends(_submitted)]
"""The form of a POST request, after the checks of app.web.csrf."""
