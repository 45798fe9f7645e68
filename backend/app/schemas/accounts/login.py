"""Login and token refresh: forms and token responses."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.schemas.accounts.passwords import Password
from app.schemas.types import TEXT_PATTERN, USERNAME_PATTERN, Input, Output

Text = Annotated[str, Field(pattern=TEXT_PATTERN, max_length=254)]
Token = Annotated[str, Field(pattern=USERNAME_PATTERN, max_length=2000)]
"""Base64url and dots, the characters that usernames may have."""


class LoginForm(Input):
    """The form of the password grant (RFC 6749 §4.3.2); `username` may be an email."""

    grant_type: Literal["password"] | None = None
    username: Annotated[Text, Field(min_length=1, description="Username or email")]
    password: Password
    scope: Text = ""
    client_id: Text | None = None
    client_secret: Text | None = None


class Tokens(Output):
    """A token response (RFC 6749 §5.1).

    Send the access token as `Authorization: Bearer …`; it is valid for `expires_in` seconds. The
    refresh token gets the next pair. It is null if it is set as a cookie.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJ…",
                    "token_type": "bearer",
                    "expires_in": 900,
                    "refresh_token": "prt_1_…",
                }
            ]
        }
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6750's name of the scheme
    expires_in: int
    refresh_token: str | None = None


class RefreshRequest(Input):
    """The refresh token, if it is not sent as a cookie."""

    refresh_token: Token | None = None
