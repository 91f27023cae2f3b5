"""The one door: reports in any order, any number of times, change nothing twice."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orders import lifecycle, statuses
from orders.lifecycle import Origin, Source, observe
from orders.models import Fill, Order, OrderHistory
from ordinis.alerts.models import Alert
from ordinis.broker.port import BROKER_STATUSES
from ordinis.verify import violations
from positions.models import LedgerEntry, Position
from tests.orders.conftest import BROKER, ReportMaker

pytestmark = pytest.mark.django_db


def _position() -> Position:
    return Position.objects.get(symbol="OKE")


def test_a_fill_moves_order_ledger_and_position_together(
    submitted: Order, report: ReportMaker
) -> None:
    filled = report("filled", filled="100", average="69.5", execution=("e1", "100", "69.5"))

    order = observe(submitted.pk, filled, BROKER)

    assert (order.status, order.filled_qty, order.average_fill_price) == ("filled", 100, 69.5)
    assert (_position().qty, _position().average_price) == (100, Decimal("69.5"))
    entry = LedgerEntry.objects.get()
    assert (entry.kind, entry.qty, entry.strategy) == ("fill", 100, order.strategy)
    assert list(violations()) == []


def test_the_same_report_twice_changes_nothing_the_second_time(
    submitted: Order, report: ReportMaker
) -> None:
    filled = report("filled", filled="100", average="69.5", execution=("e1", "100", "69.5"))
    observe(submitted.pk, filled, BROKER)
    steps = OrderHistory.objects.count()

    observe(submitted.pk, filled, BROKER)

    assert OrderHistory.objects.count() == steps
    assert _position().qty == 100
    assert Fill.objects.count() == 1


def test_a_poll_that_saw_the_fill_first_is_recognised_when_the_executions_come(
    submitted: Order, report: ReportMaker
) -> None:
    observe(submitted.pk, report("partially_filled", filled="40", average="69.25"), BROKER)
    assert Fill.objects.get().inferred

    for execution in (("e1", "10", "69.10"), ("e2", "30", "69.30")):
        observe(
            submitted.pk,
            report("partially_filled", filled=execution[1], execution=execution),
            BROKER,
        )

    assert _position().qty == 40
    fills = {(fill.execution_id, fill.qty, fill.inferred) for fill in Fill.objects.all()}
    assert fills == {("e1", Decimal(10), False), ("e2", Decimal(30), False)}
    assert LedgerEntry.objects.count() == 1
    assert list(violations()) == []


def test_executions_in_the_wrong_order_count_once_each(
    submitted: Order, report: ReportMaker
) -> None:
    second = report("filled", filled="100", average="69.40", at=2, execution=("e2", "60", "69.50"))
    first = report(
        "partially_filled", filled="40", average="69.25", at=1, execution=("e1", "40", "69.25")
    )

    observe(submitted.pk, second, BROKER)
    order = observe(submitted.pk, first, BROKER)

    assert (order.status, order.filled_qty, order.average_fill_price) == (
        "filled",
        100,
        Decimal("69.40"),
    )
    assert {fill.execution_id for fill in Fill.objects.all()} == {"e1", "e2"}
    assert _position().qty == 100
    assert list(violations()) == []


def test_a_cancel_with_40_filled_and_no_list_of_fills_books_the_40(
    submitted: Order, report: ReportMaker
) -> None:
    order = observe(submitted.pk, report("canceled", filled="40", average="69.9"), BROKER)

    assert (order.status, order.state, order.filled_qty) == ("canceled", "cancelled", 40)
    assert (_position().qty, _position().average_price) == (40, Decimal("69.9"))


def test_a_fill_after_the_cancel_counts_and_raises_an_incident(
    submitted: Order, report: ReportMaker
) -> None:
    observe(submitted.pk, report("canceled", at=1), BROKER)

    order = observe(
        submitted.pk,
        report("filled", filled="100", average="70", at=2, execution=("e1", "100", "70")),
        BROKER,
    )

    assert (order.status, _position().qty) == ("filled", 100)
    assert Alert.objects.get().code == "late_report"


def test_an_older_report_never_moves_the_status_back(submitted: Order, report: ReportMaker) -> None:
    observe(submitted.pk, report("partially_filled", filled="10", average="70", at=5), BROKER)

    order = observe(submitted.pk, report("new", at=1), BROKER)

    assert (order.status, order.filled_qty) == ("partially_filled", 10)


def test_an_unknown_status_is_stored_as_it_came_and_raises_one_incident(
    submitted: Order, report: ReportMaker
) -> None:
    for at in (1, 2):
        order = observe(submitted.pk, report("quantum_hold", at=at), BROKER)

    assert (order.status, order.state, order.is_open) == ("quantum_hold", "queued", True)
    alert = Alert.objects.get()
    assert (alert.code, alert.seen_count) == ("unknown_status", 1)
    after = observe(submitted.pk, report("filled", filled="100", average="70", at=3), BROKER)
    assert after.status == "filled"


def test_filled_without_its_shares_stays_open_until_they_are_told(
    submitted: Order, report: ReportMaker
) -> None:
    order = observe(submitted.pk, report("filled", filled="0", at=1), BROKER)
    assert (order.status, order.is_open, order.filled_qty) == ("new", True, 0)
    assert Alert.objects.get().code == "filled_short"

    order = observe(submitted.pk, report("filled", filled="100", average="70", at=1), BROKER)

    assert (order.status, order.filled_qty, _position().qty) == ("filled", 100, 100)
    assert list(violations()) == []


def test_an_order_older_than_ours_under_our_id_is_not_adopted(
    submitted: Order, report: ReportMaker
) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    spent = report("filled", filled="100", average="70", created_at=long_ago)

    with pytest.raises(lifecycle.MismatchedReport) as refused:
        observe(submitted.pk, spent, BROKER)

    assert refused.value.foreign
    assert Fill.objects.count() == 0


def test_what_no_database_text_can_hold_is_left_out_of_the_stored_report(
    submitted: Order, report: ReportMaker
) -> None:
    odd = report("quantum " + "x" * 300, raw={"note": "a\0b\ud800c", "pi": 3.0e22, "n": None})

    observe(submitted.pk, odd, BROKER)

    assert OrderHistory.objects.get(seq=2).report == {"note": "ab?c", "pi": "3e+22", "n": None}
    assert list(violations()) == []


def test_a_report_of_another_order_under_our_id_is_refused(
    submitted: Order, report: ReportMaker
) -> None:
    with pytest.raises(lifecycle.MismatchedReport):
        observe(submitted.pk, report("new", qty=Decimal(99)), BROKER)

    submitted.refresh_from_db()
    assert (submitted.status, submitted.broker_order_id) == ("submitting", None)


def test_what_the_broker_has_confirmed_is_not_changed_by_our_own_decisions(
    submitted: Order, report: ReportMaker
) -> None:
    observe(submitted.pk, report("new"), BROKER)

    for to in (statuses.UNRESOLVED, statuses.FAILED, statuses.REJECTED):
        with pytest.raises(statuses.InvalidTransition):
            lifecycle.transition(submitted.pk, to, Origin(Source.SUBMIT, "test"))

    submitted.refresh_from_db()
    assert submitted.status == "new"


@pytest.mark.parametrize("status", sorted(BROKER_STATUSES))
def test_each_broker_status_can_be_an_orders_first_word(
    submitted: Order, report: ReportMaker, status: str
) -> None:
    shares = {"filled": "100", "average": "70"} if status == "filled" else {}

    order = observe(submitted.pk, report(status, **shares), BROKER)

    assert order.status == status
    assert order.is_open == (status not in statuses.CLOSED)
    assert list(violations()) == []


def test_history_and_ledger_refuse_update_and_delete(
    submitted: Order, report: ReportMaker, db: None
) -> None:
    from django.db import transaction

    observe(submitted.pk, report("filled", filled="100", average="70"), BROKER)

    for rows in (OrderHistory.objects.all(), LedgerEntry.objects.all()):
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            rows.update(**({"reason": "x"} if rows.model is OrderHistory else {"qty": 1}))
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            rows._raw_delete(rows.db)


def test_verify_finds_a_changed_history_row_and_a_changed_position(
    submitted: Order, report: ReportMaker
) -> None:
    from django.db import connection

    observe(submitted.pk, report("filled", filled="100", average="70"), BROKER)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE orders_orderhistory DISABLE TRIGGER append_only")
        cursor.execute("UPDATE orders_orderhistory SET reason = 'nothing to see' WHERE seq = 2")
        cursor.execute("ALTER TABLE orders_orderhistory ENABLE TRIGGER append_only")
    Position.objects.update(qty=101)

    found = " ".join(violations())

    assert "step 2 of its history was changed" in found
    assert "101 shares, but its ledger says 100" in found


_EXECUTIONS = [("e1", 10, "69.10"), ("e2", 25, "69.30"), ("e3", 40, "69.00"), ("e4", 25, "69.90")]


@given(data=st.data())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_shuffled_and_repeated_reports_always_end_in_the_same_books(
    submitted: Order, report: ReportMaker, data: st.DataObject
) -> None:
    """Every stream event and some polls, in any order and any number of times."""
    from django.db import transaction

    reports, total, cost = [report("new", at=0)], 0, Decimal(0)
    for at, (execution_id, qty, price) in enumerate(_EXECUTIONS, start=1):
        total, cost = total + qty, cost + qty * Decimal(price)
        status = "filled" if total == 100 else "partially_filled"
        average = str(cost / total)
        told = {"filled": str(total), "average": average, "at": at}
        reports.append(report(status, **told))
        reports.append(report(status, execution=(execution_id, str(qty), price), **told))
    last = reports[-1]
    shuffled = [*data.draw(st.lists(st.sampled_from(reports), max_size=12)), last]

    with transaction.atomic():
        for item in shuffled:
            order = observe(submitted.pk, item, BROKER)
            assert list(violations()) == []
        assert (order.status, order.filled_qty) == ("filled", 100)
        assert _position().qty == 100
        assert order.average_fill_price is not None
        assert abs(order.average_fill_price - cost / 100) < Decimal("0.000001")
        transaction.set_rollback(True)


@pytest.mark.parametrize("status", ["submitting", "unresolved"])
def test_what_may_have_been_sent_is_never_cancelled_by_our_own_word(
    submitted: Order, status: str
) -> None:
    """A second waker once closed an exit that the first had just released."""
    if status == "unresolved":
        lifecycle.transition(submitted.pk, status, Origin(Source.SUBMIT, "broker"))

    with pytest.raises(statuses.InvalidTransition):
        lifecycle.transition(submitted.pk, "canceled", Origin(Source.DEPENDENTS, "dependents"))

    assert Order.objects.get().status == status
