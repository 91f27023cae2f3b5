"""Log lines that can be followed: one correlation id from request to history, secrets masked."""

import logging
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

from django.http import HttpRequest, HttpResponse

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")

_ACCEPTED = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "correlation_id"}
_SECRET_NAMES = (
    "APCA_API_SECRET_KEY",
    "APCA_API_KEY_ID",
    "SECRET_KEY",
    "DATABASE_URL",
    "REDIS_URL",
)
_TOKEN = re.compile(r"\bord_[A-Za-z0-9_-]{8,}")


class CorrelationMiddleware:
    """Takes over the caller's X-Request-ID, or makes one, and gives it back."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-ID", "")
        value = given if _ACCEPTED.fullmatch(given) else uuid4().hex
        token = correlation_id.set(value)
        try:
            response = self._get_response(request)
        finally:
            correlation_id.reset(token)
        response["X-Request-ID"] = value
        return response


class ContextFilter(logging.Filter):
    """Puts the correlation id on every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = correlation_id.get()
        return True


class LineFormatter(logging.Formatter):
    """`time level logger message key=value …`, with what is secret replaced."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(correlation_id)s] %(message)s")
        self.default_time_format = "%Y-%m-%dT%H:%M:%S%z"
        self.default_msec_format = ""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        extra = {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD and value != ""
        }
        fields = " ".join(f"{name}={_text(value)}" for name, value in extra.items())
        return mask(f"{line} {fields}".rstrip())


def mask(text: str) -> str:
    """The text with this process's secrets and any API token blotted out."""
    for name in _SECRET_NAMES:
        value = os.environ.get(name, "")
        if len(value) >= 6:
            text = text.replace(value, "•••")
    return _TOKEN.sub("ord_•••", text)


def _text(value: Any) -> str:
    text = str(value)
    return repr(text) if " " in text else text
