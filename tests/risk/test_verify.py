"""`verify` finds a trading state that is not the one of its history."""

import pytest

from ordinis.accounts.models import BrokerAccount
from ordinis.verify import violations
from risk import trading
from risk.models import TradingControl

pytestmark = pytest.mark.django_db


def test_a_state_that_nobody_set_is_found(account: BrokerAccount) -> None:
    trading.set_state(account.pk, "halted", reason="Lunch.", actor="ann")
    assert list(violations()) == []

    TradingControl.objects.update(state="active")

    (found,) = violations()
    assert "trading is active, but it was last set to halted" in found


def test_a_state_without_any_change_must_be_active(account: BrokerAccount) -> None:
    control = TradingControl.objects.create(account=account)
    assert list(violations()) == []

    TradingControl.objects.filter(pk=control.pk).update(state="reducing")

    assert len(list(violations())) == 1
