"""A comparison that is under way for as long as a test wants it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from ordinis.accounts.models import BrokerAccount
from reconciliation.run import alone


@contextmanager
def under_way(account: BrokerAccount) -> Iterator[None]:
    """Within it another connection is alone on the account."""
    began, ended = threading.Event(), threading.Event()

    def compares() -> None:
        with alone(account):
            began.set()
            ended.wait(60)
        connection.close()

    thread = threading.Thread(target=compares)
    thread.start()
    try:
        assert began.wait(10)
        yield
    finally:
        ended.set()
        thread.join()
