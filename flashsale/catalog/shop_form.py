"""A shop as operators send it: new, or what is to change about one."""

from typing import Annotated

from pydantic import Field, StringConstraints

from flashsale.catalog.form import Count, Form, Id

NAME_LENGTH_MAX = 128

LATITUDE_MAX = 85.05112878
"""The highest latitude that Redis' geo sets hold."""

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NAME_LENGTH_MAX)
]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Latitude = Annotated[float, Field(ge=-LATITUDE_MAX, le=LATITUDE_MAX)]
Price = Annotated[int, Field(ge=0, le=10**12)]
Score = Annotated[int, Field(ge=0, le=50)]


class NewShop(Form):
    """A shop as it is created."""

    name: Name
    type_id: Id
    x: Longitude
    y: Latitude
    images: str = Field("", max_length=1024)
    area: str | None = Field(None, max_length=128)
    address: str = Field("", max_length=255)
    avg_price: Price | None = None
    sold: Count = 0
    comments: Count = 0
    score: Score = 0
    open_hours: str | None = Field(None, max_length=32)


class ShopChange(Form):
    """What is to change about a shop; what is absent stays."""

    id: Id
    name: Name | None = None
    type_id: Id | None = None
    x: Longitude | None = None
    y: Latitude | None = None
    images: str | None = Field(None, max_length=1024)
    area: str | None = Field(None, max_length=128)
    address: str | None = Field(None, max_length=255)
    avg_price: Price | None = None
    sold: Count | None = None
    comments: Count | None = None
    score: Score | None = None
    open_hours: str | None = Field(None, max_length=32)
