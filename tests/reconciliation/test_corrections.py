"""Corrections: decided by another, on facts read anew, and applied at most once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from ordinis.accounts.models import BrokerAccount
from positions.models import LedgerEntry, Position
from reconciliation import jobs, proposals
from reconciliation.corrections import MayNotDecide, NotDecided, decide
from reconciliation.models import Correction
from reconciliation.run import reconcile
from risk import figures
from tests.conftest import hold
from tests.reconciliation.conftest import make_break, waiting
from tests.simulator_server import SimulatorServer
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def test_nothing_is_approved_after_the_mode_went_to_read_only(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    call_command("limits", "reconcile_mode=read_only", "--reason", "look first")

    with pytest.raises(NotDecided, match="reconcile_mode is read_only"):
        decide(waiting().pk, "approve", user=approver, comment="yes")

    assert Position.objects.get(symbol="KO").qty == 100


def test_approving_twice_applies_once(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    pk = waiting().pk
    decide(pk, "approve", user=approver, comment="yes")

    with pytest.raises(NotDecided, match="approved and applied before"):
        decide(pk, "approve", user=approver, comment="yes")

    assert LedgerEntry.objects.filter(kind="correction").count() == 1


def test_eight_approvals_at_the_same_moment_apply_once(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    pk = waiting().pk

    def press(_: int) -> str:
        try:
            decide(pk, "approve", user=approver, comment="yes")
        except NotDecided as error:
            return str(error)
        finally:
            connection.close()
        return "applied"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(press, range(8)))

    assert outcomes.count("applied") == 1
    assert LedgerEntry.objects.filter(kind="correction").count() == 1
    assert Position.objects.get(symbol="KO").qty == 90


def test_a_rejection_while_an_approval_reads_the_broker_wins(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    pk = waiting().pk
    sim.post("/sim/options", {"latency": 0.4})
    sim.delete("/sim/log")

    def approve() -> str:
        try:
            decide(pk, "approve", user=approver, comment="yes")
        except NotDecided as error:
            return str(error)
        finally:
            connection.close()
        return "applied"

    with ThreadPoolExecutor(1) as pool:
        approval = pool.submit(approve)
        until(lambda: sim.get("/sim/log"))
        decide(pk, "reject", user=approver, comment="no")
        assert "rejected before" in approval.result()

    assert Position.objects.get(symbol="KO").qty == 100
    assert Correction.objects.get().status == "rejected"


def test_facts_that_moved_since_the_proposal_apply_nothing_and_propose_anew(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    stale = waiting()
    hold(sim, "KO", "80", "60")

    with pytest.raises(NotDecided, match="facts moved") as refused:
        decide(stale.pk, "approve", user=approver, comment="yes")

    stale.refresh_from_db()
    assert stale.status == "superseded"
    assert Position.objects.get(symbol="KO").qty == 100
    successor = refused.value.successor
    assert successor is not None
    assert (successor.difference, successor.status) == (-20, "proposed")
    decide(successor.pk, "approve", user=approver, comment="now it is right")
    assert Position.objects.get(symbol="KO").qty == 80


def test_a_broker_that_can_not_be_read_lets_nothing_be_approved(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    sim.post("/sim/faults", [{"kind": "status_before", "path": "/v2/positions", "count": 9}])

    with pytest.raises(NotDecided, match="could not be read"):
        decide(waiting().pk, "approve", user=approver, comment="yes")

    assert waiting().decided_by is None


def test_who_proposed_it_may_not_decide_it_and_the_database_agrees(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    call_command("limits", "reconcile_mode=read_only", "--reason", "by hand only")
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    own = proposals.propose(row, figures.ask(book), by=approver)
    assert own is not None
    User.objects.create_superuser("somebody else")

    with pytest.raises(MayNotDecide):
        decide(own.pk, "approve", user=approver, comment="mine")
    with pytest.raises(IntegrityError, match="decider_is_not_the_proposer"), transaction.atomic():
        Correction.objects.filter(pk=own.pk).update(decided_by=approver)

    assert Position.objects.get(symbol="KO").qty == 100


def test_the_only_person_decides_his_own_by_typing_the_accounts_name_and_it_is_marked(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    row = make_break(book)
    decide(waiting().pk, "reject", user=approver, comment="not yet")
    own = proposals.propose(row, figures.ask(book), by=approver, reason="now it is right")
    assert own is not None

    with pytest.raises(ValueError, match="main"):
        decide(own.pk, "approve", user=approver, comment="mine", account_name="other")
    assert Position.objects.get(symbol="KO").qty == 100
    decide(own.pk, "approve", user=approver, comment="mine", account_name="main")

    own.refresh_from_db()
    assert (own.status, own.self_decided) == ("applied", True)
    assert Position.objects.get(symbol="KO").qty == 90


def test_without_the_permission_nobody_decides(
    sim: SimulatorServer, book: BrokerAccount, db: None
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)

    with pytest.raises(MayNotDecide):
        decide(waiting().pk, "reject", user=User.objects.create_user("viewer"), comment="no")


def test_what_was_rejected_comes_back_only_when_the_facts_move(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    decide(waiting().pk, "reject", user=approver, comment="a transfer is on its way")

    reconcile(book)
    assert Correction.objects.filter(status="proposed").count() == 0
    hold(sim, "KO", "85", "60")
    reconcile(book)

    assert waiting().difference == -15


def test_a_proposal_nobody_decides_expires_and_is_proposed_again(
    sim: SimulatorServer, book: BrokerAccount, approver: User
) -> None:
    hold(sim, "KO", "90", "60")
    make_break(book)
    Correction.objects.update(expires_at=figures.database_now())

    with pytest.raises(NotDecided, match="expired"):
        decide(waiting().pk, "approve", user=approver, comment="late")
    jobs.expire()
    assert Correction.objects.get().status == "expired"
    reconcile(book)

    assert waiting().difference == -10
