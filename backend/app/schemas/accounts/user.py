"""Users: registration, changes, and public and private views."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from app.core.enums import Role
from app.schemas.accounts.passwords import NewPassword, Password
from app.schemas.accounts.second_factor import Code
from app.schemas.page import CursorQuery
from app.schemas.types import (
    TEXT_PATTERN,
    USERNAME_PATTERN,
    Email,
    ImageUrl,
    Input,
    Line,
    Output,
    Username,
    omitted,
)

PersonName = Annotated[str, Line(100)]
Bio = Annotated[str, StringConstraints(max_length=1000, pattern=TEXT_PATTERN)]


class UserCreate(Input):
    """A registration."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "email": "ada@example.com",
                    "username": "ada",
                    "name": "Ada Lovelace",
                    "password": "correct horse battery",
                }
            ]
        }
    )

    email: Email
    username: Username
    name: PersonName
    password: NewPassword


class UserReplace(Input):
    """All fields that a user can change."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"email": "ada@example.com", "username": "ada", "name": "Ada, Countess of Lovelace"}
            ]
        }
    )

    email: Email
    username: Username
    name: PersonName
    bio: Bio = omitted()
    """Unchanged if omitted, like `image_url`, because older clients know neither field."""
    image_url: ImageUrl | None = omitted()


class UserUpdate(Input):
    """Fields that a user can change; omitted fields stay unchanged."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Ada King"}]})

    email: Email = omitted()
    username: Username = omitted()
    name: PersonName = omitted()
    bio: Bio = omitted()
    image_url: ImageUrl | None = omitted()


class RoleChange(Input):
    """The new role of a user."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "editor"}]})

    role: Role


class ArticlesOfDeleted(StrEnum):
    """The options for the articles of a deleted user."""

    TRASH = "trash"
    REASSIGN = "reassign"


class UserDeletionQuery(Input):
    """The articles go to the trash for 30 days, or to another author."""

    articles: Annotated[
        ArticlesOfDeleted,
        Field(description="`trash`: an editor can restore them for 30 days; `reassign`: see `to`"),
    ] = ArticlesOfDeleted.TRASH
    to: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=50,
            pattern=USERNAME_PATTERN,
            description="Id or username of the new author; a number is an id",
        ),
    ] = None

    @model_validator(mode="after")
    def _name_a_recipient(self) -> Self:
        if (self.to is not None) is not (self.articles is ArticlesOfDeleted.REASSIGN):
            raise ValueError("`to` is required with `articles=reassign`, and only allowed with it")
        return self


class UserDeletion(Input):
    """The password of a user who deletes their account, and a code of their second factor."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"password": "correct horse battery"}]}
    )

    password: Password
    code: Code | None = None


class UserPublic(Output):
    """The public view of a user."""

    id: int
    username: str
    name: str
    created_at: datetime


class UserPrivate(UserPublic):
    """The view of a user for themselves and for administrators."""

    email: str
    role: Role
    is_active: bool
    email_verified_at: datetime | None
    bio: str
    image_url: str | None
    updated_at: datetime


class AccountUpdate(Input):
    """Fields of the user's own account, including email and password."""

    email: Email = omitted()
    username: Username = omitted()
    password: NewPassword | None = None
    bio: Bio = omitted()
    image_url: ImageUrl | None = omitted()


class AccountQuery(CursorQuery):
    """Filters and page of the list of accounts for administrators."""

    q: Annotated[str, Line(100)] | None = None
    """A part of the username, the name or the email."""
    role: Role | None = None
    active: bool | None = None
