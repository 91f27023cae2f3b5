"""Log lines that can be followed: one correlation id from request to history, secrets masked.

Lines for people go to the console, lines for programs to a file of JSON. What is too long for the
console is in the extra `detail`. Must never let trouble with a log reach who writes to it.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
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
    "ORDINIS_ALERT_URLS",
    "ORDINIS_HEARTBEAT_URL",
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
        extra = _extra(record)
        extra.pop("detail", None)
        fields = " ".join(f"{name}={_text(value)}" for name, value in extra.items())
        return mask(f"{line} {fields}".rstrip())


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC), message, correlation id, and every extra field that is
    not empty; what is secret replaced."""

    def format(self, record: logging.LogRecord) -> str:
        extra = _extra(record)
        detail = {
            name: value
            for name, value in extra.pop("detail", {}).items()
            if value not in (None, "")
        }
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {
            "time": time.replace("+00:00", "Z"),
            "message": record.getMessage(),
            "correlation_id": getattr(record, "correlation_id", "-"),
            **extra,
            **detail,
        }
        return mask(json.dumps(fields, default=str))


class LineFile(logging.Handler):
    """Appends each record as one whole line to a file that other processes append to as well.

    Opened for each line, which costs little: so it may be renamed or removed at any time, and is
    made with its folder when the first line comes. What can't be written is said on stderr.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = Path(path)
        self._failed = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            try:
                self._append(line)
            except FileNotFoundError:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._append(line)
        except Exception:
            self.handleError(record)

    def _append(self, line: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # What a full disk cut off must not cost the next line.
            line, self._failed = b"\n" * self._failed + line, True
            # One write is never mixed with another's; a buffered file would make several of it.
            if (written := os.write(file, line)) < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written to {self._path}")
            self._failed = False
        finally:
            os.close(file)


def mask(text: str) -> str:
    """The text with this process's secrets and any API token blotted out."""
    for name in _SECRET_NAMES:
        value = os.environ.get(name, "")
        if len(value) >= 6:
            text = text.replace(value, "•••")
    # The search for a word's start is slow, and most texts have no token.
    return _TOKEN.sub("ord_•••", text) if "ord_" in text else text


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name: value for name, value in vars(record).items() if name not in _STANDARD and value != ""
    }


def _text(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)
