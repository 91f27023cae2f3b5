"""What every part of the HTTP API shares: problems (RFC 9457), exact numbers, times, cursors.

Holds no rule of the desk. Requests take decimals as strings or integers, never as JSON floats:
a float has already lost the exact price.
"""

import base64
import binascii
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from ninja import Schema
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema


class Problem(Exception):
    """An answer that is not a success: `code` is stable, `detail` says what to do next."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def body(self) -> dict[str, Any]:
        return {
            "type": f"urn:ordinis:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }


class ProblemOut(Schema):
    """application/problem+json."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class FieldProblem(Schema):
    """What is wrong with one field of a request."""

    field: str
    message: str


class InvalidOut(ProblemOut):
    """`invalid_request` with the fields that are wrong; other codes name what else is."""

    errors: list[FieldProblem] | None = None


class Body(Schema):
    """A request body: unknown fields are refused, so that a typing error is never ignored."""

    model_config = ConfigDict(extra="forbid", str_max_length=200)


def _exact(value: Any) -> Any:
    if isinstance(value, bool | float):
        raise ValueError('write the number as a string ("250.30") or an integer, not as a float')
    return value


# Positive, up to 10 digits before the point and 9 after it (what the broker takes).
Amount = Annotated[
    Decimal,
    BeforeValidator(_exact),
    Field(gt=0, max_digits=19, decimal_places=9),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,10}(\.[0-9]{1,9})?$"},
                {"type": "integer", "minimum": 1},
            ]
        }
    ),
]


def moment(value: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def encode_cursor(created_at: datetime, key: UUID | int) -> str:
    """Where a page ended, opaque to the caller."""
    text = f"{created_at.astimezone(UTC).isoformat()}|{key}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """The reverse of `encode_cursor`; a Problem for anything else."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created_at, key = text.split("|")
        return datetime.fromisoformat(created_at), key
    except (ValueError, binascii.Error) as error:
        raise Problem(
            422, "invalid_cursor", "Pass back the `next` of the page before, unchanged."
        ) from error


def number_of(key: str) -> int:
    """The key of a cursor as a row's number; a Problem for anything else."""
    if not (key.isascii() and key.isdecimal() and len(key) <= 18):
        raise Problem(422, "invalid_cursor", "Pass back the `next` of the page before, unchanged.")
    return int(key)
