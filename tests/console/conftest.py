"""What the console's tests share: people of each group, and a book with a waiting correction."""

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from ordinis.accounts.models import BrokerAccount
from ordinis.console.groups import ensure_groups
from positions.ledger import book, lock_position
from positions.models import LedgerEntry, Position
from reconciliation.models import Break, Correction, Kind
from tests.console.browsing import browser, complaints, page  # noqa: F401 fixtures

PASSWORD = "right-horse-battery"

Person = Callable[..., User]
Browse = Callable[..., Client]


@pytest.fixture(autouse=True)
def cheap_passwords(settings: LazySettings) -> None:
    """Django's own hasher takes a third of a second for each person, on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def person(db: None) -> Person:
    """Makes somebody of these groups, who may log in to the console."""
    ensure_groups()

    def make(name: str, *groups: str) -> User:
        user = User.objects.create_user(name, password=PASSWORD, is_staff=True)
        user.groups.set(Group.objects.filter(name__in=groups))
        return user

    return make


@pytest.fixture
def browse(person: Person) -> Browse:
    """A client that is logged in as somebody new of these groups."""

    def enter(*groups: str) -> Client:
        client = Client()
        client.force_login(person("-".join(groups).lower() or "nobody", *groups))
        return client

    return enter


def words(html: str) -> str:
    """A page's text without its tags."""
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", html).split()))


def held(account: BrokerAccount, symbol: str, qty: str, *, broker: str | None = None) -> Position:
    """A position in our book, and what the broker says of it."""
    with transaction.atomic():
        position = lock_position(account.pk, symbol)
        book(
            position,
            kind=LedgerEntry.Kind.OPENING,
            cause=f"opening/{symbol}",
            qty=Decimal(qty),
            price=Decimal("210"),
            occurred_at=timezone.now(),
        )
    position.broker_qty = position.broker_qty_available = Decimal(qty if broker is None else broker)
    position.broker_price = position.broker_average_price = Decimal("210")
    position.broker_as_of = timezone.now()
    position.save()
    return position


def broken(account: BrokerAccount, kind: str = Kind.QUANTITY, **values: Any) -> Break:
    """An open break: 100 AAPL here against 60 at the broker unless told otherwise."""
    now = timezone.now()
    given = {
        "subject": "position/AAPL",
        "symbol": "AAPL",
        "local": Decimal(100),
        "broker": Decimal(60),
        "value": Decimal(8400),
        "severity": Break.Severity.WARNING,
        "first_seen": now,
        "last_seen": now,
        **values,
    }
    return Break.objects.create(account=account, kind=kind, **given)


def waiting(account: BrokerAccount, symbol: str = "AAPL", by: User | None = None) -> Correction:
    """Our 100 against the broker's 60, and a correction of it that nobody has decided."""
    position = held(account, symbol, "100", broker="60")
    now = timezone.now()
    correcting = Break.Status.CORRECTING
    found = broken(account, subject=f"position/{symbol}", symbol=symbol, status=correcting)
    return Correction.objects.create(
        account=account,
        subject=found,
        position=position,
        local=Decimal(100),
        broker=Decimal(60),
        value=Decimal(8400),
        limits={
            "reconcile_mode": "manual",
            "auto_correct_max_value": "100",
            "auto_correct_max_qty": "1",
        },
        local_average_price=Decimal(210),
        broker_average_price=Decimal(210),
        ledger_version=position.ledger_version,
        evidence={"symbol": symbol, "qty": "60"},
        watermark=now,
        proposed_by=by,
        expires_at=now + timedelta(hours=24),
    )


@pytest.fixture
def correction(account: BrokerAccount) -> Correction:
    return waiting(account)
