"""Looks at everything a desk depends on and says, line by line, what is wrong and what to do.

Reads only, at the broker too. A line that can't be checked because an earlier one fails says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django_q.models import OrmQ

from orders.selftest import last_selftest, silent
from ordinis.accounts.brokers import broker_for
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.channels import configured
from ordinis.alerts.models import AlertChannel
from ordinis.broker.errors import BrokerError, NotSent
from ordinis.broker.port import Broker
from ordinis.health import Failure, books, processes
from risk import trading
from risk.figures import database_now
from risk.states import ACTIVE

Status = Literal["ok", "warning", "fail"]
# Signed requests and "today" go wrong beyond this; an exchange's own clock is the measure.
_LARGEST_SKEW = 2.0
_LONGEST_QUEUE = 20
_SELFTEST_HOLDS = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `advice` says what to do unless it is ok."""

    check: str
    status: Status
    message: str
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Every check in turn: the database first, then what needs it, then the broker."""
    ready = True
    for finding in _database():
        ready = ready and finding.status == "ok"
        yield finding
    if not ready:
        yield Finding("everything else", "fail", "not checked: the database comes first")
        return
    yield from _queue()
    yield from _seen("processes", processes, "all give signs of life")
    yield _alert_channels()
    accounts = list(BrokerAccount.served())
    if not accounts:
        yield Finding("accounts", "fail", "there is none", "Run manage.py start, or create_token.")
    for account in accounts:
        yield from _broker(account)
        yield _trading(account)
        yield _selftest(account)
    yield from _seen("books", books, "compared with the broker in time")


def _database() -> Iterator[Finding]:
    where = "DATABASE_URL" if settings.DATABASE_URL else "embedded"
    try:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Error as error:
        yield Finding(
            "database",
            "fail",
            f"{where}: {error}",
            "Check DATABASE_URL, or leave it out to use the embedded database.",
        )
        return
    yield Finding("database", "ok", f"{where}, PostgreSQL {connection.get_database_version()[0]}")
    if pending:
        yield Finding("migrations", "fail", f"{len(pending)} pending", "Run manage.py start.")
    else:
        yield Finding("migrations", "ok", "all applied")


def _alert_channels() -> Finding:
    check, configuration = "alert channels", configured()
    if configuration.faults:
        why = " ".join(configuration.faults.values())
        return Finding(check, "fail", f"not all can be used. {why}", "Then run test_alert.")
    if not configuration.channels:
        return Finding(check, "ok", "none is set up: alerts are shown in the console")
    rows = {row.name: row for row in AlertChannel.objects.filter(name__in=configuration.names)}
    words = "; ".join(_channel(name, rows.get(name)) for name in configuration.names)
    failing = [name for name in rows if rows[name].failures]
    if failing:
        dead = any(row.failures >= settings.ALERT_CHANNEL_DEAD_AFTER for row in rows.values())
        advice = f"Check the address and the service of {', '.join(failing)}, then run test_alert."
        return Finding(check, "fail" if dead else "warning", words, advice)
    return Finding(check, "ok", words)


def _channel(name: str, row: AlertChannel | None) -> str:
    if row is None or (row.last_sent_at is None and not row.failures):
        return f"{name}: nothing was sent yet"
    worked = f"{row.last_sent_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if row.last_sent_at else ""
    last = f"last worked on {worked}" if worked else "never worked"
    if not row.failures:
        return f"{name}: {last}"
    return f"{name}: failures in a row: {row.failures}, {last} ({row.last_error})"


def _queue() -> Iterator[Finding]:
    if settings.REDIS_URL:
        yield _redis()
        return
    waiting = OrmQ.objects.count()
    if waiting > _LONGEST_QUEUE:
        yield Finding(
            "queue",
            "warning",
            f"{waiting} tasks wait in the database",
            "The worker does not keep up: look at var/log/worker.log.",
        )
    else:
        yield Finding("queue", "ok", f"in the database, {waiting} tasks wait")


def _redis() -> Finding:
    from ordinis.celery import app

    try:
        with app.connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=3)
    except Exception as error:  # whatever its client throws: it can't be reached
        return Finding(
            "queue",
            "fail",
            f"REDIS_URL can't be reached ({type(error).__name__})",
            "Start Redis, correct REDIS_URL, or leave it out to queue in the database.",
        )
    return Finding("queue", "ok", "Redis answers")


def _broker(account: BrokerAccount) -> Iterator[Finding]:
    try:
        broker = broker_for(account)
        figures = broker.account()
    except BrokerError as error:
        advice = error.advice
        if isinstance(error, NotSent):
            advice = (
                f"Nothing answers at {settings.BROKER_URL}. Start the broker's side (make run), "
                "with the same PORT and APCA_API_BASE_URL as here."
            )
        yield Finding(f"{account}: keys", "fail", error.message, advice)
        for what in ("settings", "clock"):
            yield Finding(f"{account}: {what}", "fail", "not checked: the keys come first")
        return
    mode = {"simulated": "the simulator", "paper": "paper", "live": "LIVE, with real money"}
    yield Finding(
        f"{account}: keys",
        "ok",
        f"account {figures.account_number} answers on {mode[settings.BROKER_MODE]}",
    )
    if account.account_number and figures.account_number != account.account_number:
        yield Finding(
            f"{account}: account",
            "fail",
            f"the keys are of {figures.account_number}, the book is of {account.account_number}",
            "Use the keys of the book's account, or another database for another account.",
        )
    if figures.trading_blocked or figures.status not in ("", "ACTIVE"):
        yield Finding(
            f"{account}: permission",
            "fail",
            f"status {figures.status}, trading blocked: {figures.trading_blocked}",
            "Ask the broker why; until then every order will be refused.",
        )
    yield from _permission(account, broker)
    yield from _clock(account, broker)


def _permission(account: BrokerAccount, broker: Broker) -> Iterator[Finding]:
    try:
        configuration = broker.configuration()
    except BrokerError as error:
        yield Finding(f"{account}: settings", "warning", error.message, error.advice)
        return
    if configuration.suspend_trade:
        yield Finding(
            f"{account}: settings",
            "fail",
            "new orders are suspended at the broker (suspend_trade)",
            "Allow them on the console's Trading control page, or in the broker's own app, when "
            "trading may go on.",
        )
    else:
        yield Finding(f"{account}: settings", "ok", "the broker takes new orders")


def _clock(account: BrokerAccount, broker: Broker) -> Iterator[Finding]:
    asked = datetime.now(UTC)
    try:
        theirs = broker.clock().timestamp
    except BrokerError as error:
        yield Finding(f"{account}: clock", "warning", error.message, error.advice)
        return
    answered = datetime.now(UTC)
    skew = (theirs - (asked + (answered - asked) / 2)).total_seconds()
    if abs(skew) > _LARGEST_SKEW:
        yield Finding(
            f"{account}: clock",
            "fail",
            f"this machine's clock is {-skew:+.1f} s off the exchange's",
            "Set this machine's time (NTP): ages and days are judged by it.",
        )
    else:
        yield Finding(f"{account}: clock", "ok", f"{abs(skew):.2f} s off the exchange's")


def _trading(account: BrokerAccount) -> Finding:
    check, state = f"{account}: trading", trading.current(account.pk)
    if state.state == ACTIVE:
        return Finding(check, "ok", "active")
    why = " ".join(reason.message for reason in state.reasons)
    advice = "The console's Trading control page says what ends it."
    return Finding(check, "warning", f"{state.state}. {why}", advice)


def _selftest(account: BrokerAccount) -> Finding:
    check, command = f"{account}: risk self-test", f"manage.py risk_selftest --account {account}"
    test = last_selftest(account)
    if test is None:
        return Finding(check, "warning", "it never ran", f"Run {command}.")
    when = f"{test.ran_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if not test.passed:
        return Finding(
            check,
            "fail",
            f"on {when} these controls did not fire: {', '.join(silent(test))}",
            f"Halt trading (manage.py halt) until it is known why, then run {command} again.",
        )
    if database_now() - test.ran_at > _SELFTEST_HOLDS:
        days = (database_now() - test.ran_at).days
        return Finding(check, "warning", f"passed on {when}, {days} days ago", f"Run {command}.")
    fired = sum(each["ok"] is True for each in test.results)
    return Finding(check, "ok", f"passed on {when}: {fired} controls fired")


def _seen(name: str, check: Callable[[], Iterator[Failure]], fine: str) -> Iterator[Finding]:
    failures = list(check())
    if not failures:
        yield Finding(name, "ok", fine)
    for failure in failures:
        what, _, advice = failure.message.partition(". ")
        yield Finding(failure.check, "warning", what, advice)
