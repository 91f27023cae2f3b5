"""Proves that each risk control fires: sends a synthetic order through each (SPEC section 3).

Nothing stays but the result, and nothing goes to the broker but two reads: each control is
provoked in a transaction of its own, which can only end by being rolled back, under the account's
lock. A real order waits for some milliseconds, and is never judged by what was made up; a process
that dies in between leaves nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from orders.provocations import CONTROLS, ordinary
from orders.selftest_bench import Bench, Came, Off
from ordinis.accounts.models import BrokerAccount
from risk import figures
from risk.checks import inputs
from risk.figures import Figures
from risk.limits import Limits, in_force
from risk.models import SelfTest


class NotTested(Exception):
    """The controls can't be tried now; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One control: what was sent, the codes expected and those that came. `ok` is None where the
    control is not in force; then `came` says why."""

    control: str
    sent: str
    expected: str
    came: str
    ok: bool | None

    @property
    def stored(self) -> dict[str, Any]:
        return {
            "control": self.control,
            "sent": self.sent,
            "expected": self.expected,
            "came": self.came,
            "ok": self.ok,
        }


class _Undone(Exception):
    """Carries what came out of a transaction that must not be committed."""

    def __init__(self, came: Came) -> None:
        super().__init__()
        self.came = came


def run(account: BrokerAccount, *, actor: str) -> SelfTest:
    """Tries every control by the limits in force and figures asked for now, and stores what came.

    Raises BrokerUnavailable or BrokerRefused when figures could not be had, and NotTested when
    they can't be used.
    """
    told, limits = figures.ask(account), in_force(account.pk)
    if inputs.FIGURES in _undone(account, told, limits, ordinary).codes:
        raise NotTested(
            "The broker's figures can't be used, so that every order is denied. Look "
            "at the account in the broker's own app, then run it again."
        )
    tried = list(_tried(account, told, limits))
    return SelfTest.objects.create(
        account=account,
        actor=actor,
        passed=all(each.ok is not False for each in tried),
        results=[each.stored for each in tried],
    )


def last_selftest(account: BrokerAccount) -> SelfTest | None:
    """The newest run; None when it never ran."""
    return SelfTest.objects.filter(account=account).order_by("-ran_at", "-pk").first()


def silent(test: SelfTest) -> list[str]:
    """The controls that did not fire."""
    return [each["control"] for each in test.results if each["ok"] is False]


def _tried(account: BrokerAccount, told: Figures, limits: Limits) -> Iterator[Tried]:
    for control in CONTROLS:
        expected = ", ".join(control.expected)
        try:
            came = _undone(account, told, limits, control.provoke)
        except Off as off:
            yield Tried(control=control.name, sent="", expected=expected, came=str(off), ok=None)
            continue
        except Exception as error:  # a control that breaks has not fired: it is named like one
            came = Came("", (f"{type(error).__name__}: {error}",))
        yield Tried(
            control=control.name,
            sent=came.sent,
            expected=expected,
            came=", ".join(dict.fromkeys(came.codes)) or "nothing stopped it",
            ok=set(control.expected) <= set(came.codes),
        )


def _undone(
    account: BrokerAccount, told: Figures, limits: Limits, provoke: Callable[[Bench], Came]
) -> Came:
    """What came when it was provoked. Whatever happens, nothing is committed."""
    try:
        with transaction.atomic(durable=True):
            raise _Undone(provoke(Bench(BrokerAccount.lock(account.pk), told, limits)))
    except _Undone as undone:
        return undone.came
