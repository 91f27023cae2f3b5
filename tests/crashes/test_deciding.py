"""The person who decides is cut off after the click: the correction is applied once, or not at all
and still to be decided."""

import signal
from decimal import Decimal

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from positions.ledger import cash_of
from positions.models import CashEntry, LedgerEntry, Position
from reconciliation.models import Break, Correction
from reconciliation.run import reconcile
from tests import other_process
from tests.conftest import hold
from tests.simulator_server import SimulatorServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def book(sim: SimulatorServer, account: BrokerAccount, settings: LazySettings) -> BrokerAccount:
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "KO", "100", "60")
    reconcile(account)
    User.objects.create_superuser("approver")
    return account


def _press(sim: SimulatorServer, correction: Correction, **environment: str) -> tuple[int, str]:
    process = other_process.start(
        "tests.crashes.decider", str(correction.pk), "approver", broker=sim.url, **environment
    )
    try:
        told, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, told


def _drifted(sim: SimulatorServer, account: BrokerAccount, kind: str) -> Correction:
    if kind == "cash":
        sim.post("/sim/account", {"cash": "999000"})
    else:
        hold(sim, "KO", "90", "60")
    for _ in range(2):
        reconcile(account)
    return Correction.objects.get(status="proposed")


@pytest.mark.parametrize("kind", ["position", pytest.param("cash", marks=pytest.mark.long)])
def test_the_decider_dies_after_the_click_and_nothing_is_half_applied(
    sim: SimulatorServer, book: BrokerAccount, kind: str
) -> None:
    correction = _drifted(sim, book, kind)
    cash = cash_of(book.pk)

    code, told = _press(sim, correction, ORDINIS_FAILPOINT="correction.booked")

    assert (code, told) == (-signal.SIGKILL, "")
    correction.refresh_from_db()
    assert (correction.kind, correction.status) == (kind, "proposed")
    assert (correction.decided_by, correction.ledger_entry, correction.cash_entry) == (None,) * 3
    assert Break.objects.get().status == "correcting"
    assert not LedgerEntry.objects.exclude(kind="opening").exists()
    assert not CashEntry.objects.exclude(kind="opening").exists()
    assert (Position.objects.get().qty, cash_of(book.pk)) == (100, cash)
    assert list(violations()) == []

    # Pressed again, and once more by somebody who did not see the first answer.
    answers = [_press(sim, correction)[1] for _ in range(2)]

    assert answers[0] == "applied\n"
    assert "approved and applied before" in answers[1]
    booked = LedgerEntry.objects.exclude(kind="opening").count()
    paid = CashEntry.objects.exclude(kind="opening").count()
    assert (booked, paid) == ((0, 1) if kind == "cash" else (1, 0))
    if kind == "position":
        assert Position.objects.get().qty == Decimal(90)
    assert list(violations()) == []
    assert reconcile(book).differences == []
