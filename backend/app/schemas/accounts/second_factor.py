"""Second factor: setup and login."""

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from app.schemas.accounts.login import Token
from app.schemas.accounts.passwords import Password, secret_with_pattern
from app.schemas.types import Input, Output

MAX_CODE_LENGTH = 40
CODE_PATTERN = r"^[A-Za-z0-9 -]+$"


def _as_code(code: SecretStr) -> SecretStr:
    if re.fullmatch(CODE_PATTERN.strip("^$"), code.get_secret_value()) is None:
        raise ValueError("must consist of letters and digits; spaces and dashes are ignored")
    return code


Code = Annotated[
    SecretStr,
    Field(
        min_length=1,
        max_length=MAX_CODE_LENGTH,
        description="An authenticator code of six digits, or a recovery code except at setup",
        json_schema_extra=secret_with_pattern(CODE_PATTERN),
    ),
    AfterValidator(_as_code),
]


class SecondFactorStatus(Output):
    """Whether a login requires a code, and how many recovery codes are left."""

    enabled: bool
    recovery_codes_left: int


class SecondFactorCreate(Input):
    """The password, which is required to create a secret."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"password": "correct horse battery"}]}
    )

    password: Password


class SecondFactorCreated(Output):
    """The secret for an authenticator, and its URI for a QR code."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "secret": "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP",
                    "uri": "otpauth://totp/Pressroom:ada?secret=JBSWY3DP…&issuer=Pressroom",
                }
            ]
        }
    )

    secret: str
    uri: str


class SecondFactorConfirm(Input):
    """A first code, which proves that the authenticator works."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: Code


class SecondFactorChange(Input):
    """Password and code, which are required to change the second factor."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"password": "correct horse battery", "code": "123456"}]}
    )

    password: Password
    code: Code


class RecoveryCodeList(Output):
    """Codes for a lost authenticator. Each is valid for one use, and they are shown only once."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"recovery_codes": ["k3vq-7dpa-xw2m-hn5e"]}]}
    )

    recovery_codes: list[str]


class SecondFactorLogin(Input):
    """The challenge of the login, and a code."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"challenge": "eyJ.e30.x", "code": "123456"}]}
    )

    challenge: Token
    code: Code
