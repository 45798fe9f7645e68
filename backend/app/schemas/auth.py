"""Logging in: the OAuth2 password form, and the token it is answered with."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.schemas.passwords import Password
from app.schemas.types import TEXT_PATTERN, Input, Output

Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=254)]


class LoginForm(Input):
    """RFC 6749 §4.3.2: the form of the password grant; `username` takes an email as well."""

    grant_type: Literal["password"] | None = None
    username: Annotated[Text, Field(min_length=1, description="Username or email")]
    password: Password
    scope: Text = ""
    client_id: Text | None = None
    client_secret: Text | None = None


class AccessToken(Output):
    """RFC 6749 §5.1: send it as `Authorization: Bearer …` for `expires_in` seconds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"access_token": "eyJ…", "token_type": "bearer", "expires_in": 1800}]
        }
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's name of the scheme
    expires_in: int
