"""Query parameters, strictly: each a number within its bounds, or 400 with one line."""

import re

from flashsale.catalog.form import LATITUDE_MAX
from flashsale.catalog.page import NUMBER_MAX
from flashsale.model import parse_id
from flashsale.server.answers import rejected
from flashsale.server.request import Refused, Request

_DECIMAL = re.compile(r"[+-]?\d{1,3}(\.\d{1,20})?")
_LONGITUDE_MAX = 180.0


class Query:
    """The parameters of one request. Its methods raise Refused with 400."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def text(self, name: str, length_max: int) -> str:
        """Text of up to `length_max` characters, "" where it is absent."""
        text = self._request.query(name).strip()
        if len(text) > length_max:
            raise _refused(f"{name}: expected at most {length_max} characters")
        return text

    def id(self, name: str) -> int:
        """An id."""
        number = parse_id(self._request.query(name))
        if number is None:
            raise _refused(f"{name}: expected an id from 1 to 9223372036854775807")
        return number

    def page(self, name: str = "current") -> int:
        """The number of a page, 1 where it is absent."""
        number = parse_id(self._request.query(name) or "1")
        if number is None or number > NUMBER_MAX:
            raise _refused(f"{name}: expected a page from 1 to {NUMBER_MAX}")
        return number

    def place(self) -> tuple[float, float] | None:
        """Longitude `x` and latitude `y`, None where both are absent."""
        if not (self._request.query("x") or self._request.query("y")):
            return None
        return self._degrees("x", _LONGITUDE_MAX), self._degrees("y", LATITUDE_MAX)

    def _degrees(self, name: str, bound: float) -> float:
        text = self._request.query(name)
        if not _DECIMAL.fullmatch(text) or abs(float(text)) > bound:
            raise _refused(f"{name}: expected degrees from -{bound:g} to {bound:g}, x and y both")
        return float(text)


def _refused(message: str) -> Refused:
    return Refused(rejected(message, 400))
