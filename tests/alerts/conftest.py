"""What the alerts' tests share: a channel that is a real HTTP server, and alerts to tell."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.conf import LazySettings
from django.db.models import F

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts import delivery
from ordinis.alerts.models import Alert, AlertChannel, AlertMessage, raise_alert
from tests.console.conftest import browse, cheap_passwords, person


class Receiver:
    """What people would read: takes messages over HTTP, or refuses them, or does not answer."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.status = 200
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.asked.set()
                assert receiver.may_answer.wait(30)
                if receiver.status == 200:
                    receiver.messages.append(json.loads(body))
                self.send_response(receiver.status)
                self.end_headers()

            def do_GET(self) -> None:
                receiver.messages.append({"path": self.path})
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        return f"json://ann:hunter22@127.0.0.1:{self.port}/token-of-secrets"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]

    @property
    def last(self) -> str:
        """The last message's text."""
        return str(self.messages[-1]["message"])

    def close(self) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def at_once(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages are due as soon as they are made, and nothing is set up but by the test."""
    settings.ALERT_BATCH_SECONDS = 0
    settings.CONSOLE_URL = ""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("ORDINIS_ALERT_URLS", "ORDINIS_HEARTBEAT_URL"):
        monkeypatch.delenv(name, raising=False)
    delivery._sending.clear()


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def ops(receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """The only channel."""
    receiver = receivers()
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={receiver.address}")
    return receiver


@pytest.fixture
def both(
    receivers: Callable[[], Receiver], monkeypatch: pytest.MonkeyPatch
) -> tuple[Receiver, Receiver]:
    """The channels ops and mail."""
    ops, mail = receivers(), receivers()
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={ops.address},mail={mail.address}")
    return ops, mail


Raise = Callable[..., Alert]


@pytest.fixture
def problem(account: BrokerAccount) -> Raise:
    def make(
        code: str = "stream_down",
        subject: str = "main",
        severity: Alert.Severity = Alert.Severity.CRITICAL,
        message: str = "The stream is down.",
        of: BrokerAccount | None = account,
    ) -> Alert:
        raise_alert(
            None if of is None else of.pk,
            code=code,
            subject=subject,
            severity=severity,
            message=message,
        )
        return Alert.objects.get(account=of, code=code, subject=subject, ended_at=None)

    return make


def pass_time(**length: float) -> None:
    """Moves everything that waits or was told into the past."""
    past = timedelta(**length)
    Alert.objects.update(last_told_at=F("last_told_at") - past)
    AlertChannel.objects.update(retry_at=F("retry_at") - past)
    AlertMessage.objects.update(
        next_attempt_at=F("next_attempt_at") - past,
        claimed_until=F("claimed_until") - past,
        created_at=F("created_at") - past,
    )


def states(**only: Any) -> list[str]:
    """The states of the messages, in the order in which they were made."""
    rows = AlertMessage.objects.filter(**only).order_by("pk")
    return list(rows.values_list("state", flat=True))


__all__ = ["browse", "cheap_passwords", "person"]  # the console's, for its pages here
