"""The export of a user's own data."""

from pydantic import ConfigDict

from app.schemas.accounts.passwords import Password
from app.schemas.accounts.second_factor import Code
from app.schemas.types import Input


class OwnDataRequest(Input):
    """The password of a user who exports their data, and a code of their second factor."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"password": "correct horse battery"}]}
    )

    password: Password
    code: Code | None = None
