"""Postal addresses of a user."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict

from app.schemas.types import Country, Input, Line, Output


class AddressInput(Input):
    """All fields of an address, to create or replace it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "label": "home",
                    "line1": "12 St James's Square",
                    "city": "London",
                    "postal_code": "SW1Y 4JH",
                    "country": "GB",
                }
            ]
        }
    )

    label: Annotated[str, Line(50)]
    line1: Annotated[str, Line(200)]
    line2: Annotated[str, Line(200)] | None = None
    city: Annotated[str, Line(100)]
    region: Annotated[str, Line(100)] | None = None
    postal_code: Annotated[str, Line(20)] | None = None
    country: Country


class AddressResponse(Output):
    """A stored address."""

    id: int
    user_id: int
    label: str
    line1: str
    line2: str | None
    city: str
    region: str | None
    postal_code: str | None
    country: str
    created_at: datetime
    updated_at: datetime
