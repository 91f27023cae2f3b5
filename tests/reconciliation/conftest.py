"""A book that was taken over, and what two looks at it make."""

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from ordinis.accounts.models import BrokerAccount
from reconciliation.models import Break, Correction
from reconciliation.run import reconcile
from tests.conftest import hold
from tests.simulator_server import SimulatorServer


@pytest.fixture
def approver(db: None) -> User:
    return User.objects.create_superuser("approver")


@pytest.fixture
def book(sim: SimulatorServer, account: BrokerAccount, settings: LazySettings) -> BrokerAccount:
    """A book that was taken over with 100 KO and 40 OKE, and no waiting for the second look."""
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "KO", "100", "60")
    hold(sim, "OKE", "40", "70")
    reconcile(account)
    return account


def make_break(account: BrokerAccount) -> Break:
    """The break that two looks make of the present difference."""
    reconcile(account)
    reconcile(account)
    return Break.objects.get(status__in=Break.OPEN_STATUSES)


def waiting() -> Correction:
    return Correction.objects.get(status="proposed")
