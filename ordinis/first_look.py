"""Compares every book with its broker before the first order is taken (SPEC R2, R3).

Runs in a child of its own: the web process must fork its workers without threads or connections.
Never keeps the desk closed for long: a broker that does not answer is waited for briefly, and what
follows from an old book is the trading state's to say.
"""

import logging
import os
import signal
import time

from django.db import connections

from ordinis.accounts.models import BrokerAccount
from reconciliation.run import Busy, reconcile
from risk.limits import in_force
from risk.models import RiskLimits

log = logging.getLogger("ordinis.reconciliation")


def compare_books(*, seconds: float) -> bool:
    """Whether all books were compared within these seconds. Called before any thread exists."""
    connections.close_all()  # a child must not share them
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _compare()
            code = 0
        except Exception:  # the desk opens all the same; the clock tries again
            log.exception("the books were not compared before the first order")
        finally:
            os._exit(code)
    return _ends_well(child, time.monotonic() + seconds)


def _compare() -> None:
    for account in BrokerAccount.served():
        if in_force(account.pk).reconcile_mode == RiskLimits.ReconcileMode.OFF:
            continue
        try:
            reconcile(account, source="start")
        except Busy:  # it is being compared just now: the others must not wait for it
            log.warning("another comparison is under way", extra={"account": account.name})


def _ends_well(child: int, deadline: float) -> bool:
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    log.warning("the broker is slow: orders are taken before the books were compared")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
