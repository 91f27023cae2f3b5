"""The decide page: who may, what it takes, and that nothing is decided twice."""

from decimal import Decimal

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client

from ordinis.accounts.models import BrokerAccount
from positions.models import LedgerEntry, Position
from reconciliation.models import Break, Correction, ReconciliationReport
from reconciliation.run import reconcile
from tests.conftest import hold
from tests.console.conftest import Browse, Person, waiting, words
from tests.simulator_server import SimulatorServer

Status = Correction.Status
LIST = "/reconciliation/correction/"


def address(correction: Correction) -> str:
    return f"/reconciliation/correction/{correction.pk}/decide/"


def unchanged(correction: Correction) -> bool:
    correction.refresh_from_db()
    return (
        correction.status == Status.PROPOSED
        and Position.objects.get(symbol="AAPL").qty == 100
        and LedgerEntry.objects.count() == 1
    )


def test_the_page_shows_both_sides_what_approving_does_and_a_form(
    browse: Browse, correction: Correction
) -> None:
    page = browse("Approver").get(address(correction)).content.decode()

    assert "Approve: add −40 AAPL to the book" in page
    assert "AAPL in our book, shares 100 60" in words(page)
    assert "No order is sent: nothing is bought or sold." in page
    assert '<textarea id="comment" name="comment"' in page


def test_looking_changes_nothing(browse: Browse, correction: Correction) -> None:
    client = browse("Approver")
    client.get(address(correction), {"decision": "approve", "comment": "By address."})
    client.head(address(correction))

    assert unchanged(correction)


@pytest.mark.parametrize("group", ["Viewer", "Operator", "Risk manager", "Administrator"])
def test_who_may_not_decide_gets_403(browse: Browse, correction: Correction, group: str) -> None:
    client = browse(group)

    looked = client.get(address(correction))
    assert looked.status_code == 403
    assert "You may not decide this correction." in looked.content.decode()
    given = {"decision": "approve", "comment": "I want it."}
    assert client.post(address(correction), given).status_code == 403
    assert unchanged(correction)


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def test_nobody_decides_their_own_proposal_while_somebody_else_could(
    account: BrokerAccount, person: Person
) -> None:
    proposer = person("both", "Operator", "Approver")
    person("other", "Approver")
    correction = waiting(account, by=proposer)
    client = logged_in(proposer)

    given = {"decision": "approve", "comment": "Mine.", "account_name": account.name}
    for answer in (client.get(address(correction)), client.post(address(correction), given)):
        assert answer.status_code == 403
        page = answer.content.decode()
        assert "You proposed it: somebody else decides it." in page
        assert 'name="decision"' not in page
        assert "Ask an administrator" not in page
    assert unchanged(correction)


def test_the_only_person_decides_their_own_by_typing_the_accounts_name_and_it_is_marked(
    account: BrokerAccount, person: Person
) -> None:
    proposer = person("both", "Operator", "Approver")
    correction = waiting(account, by=proposer)
    client = logged_in(proposer)
    form = client.get(address(correction)).content.decode()
    given = {"decision": "reject", "comment": "On second thoughts, no."}

    without = client.post(address(correction), given)
    wrong = client.post(address(correction), {**given, "account_name": "other"})
    still = unchanged(correction)
    done = client.post(address(correction), {**given, "account_name": account.name})

    assert "marked as self-decided" in form
    assert 'name="account_name"' in form
    assert (without.status_code, wrong.status_code, still) == (400, 400, True)
    assert "type the account&#x27;s name, main" in wrong.content.decode()
    assert done.status_code == 302
    correction.refresh_from_db()
    assert (correction.status, correction.self_decided) == (Status.REJECTED, True)
    assert "(self-decided)" in client.get(LIST, {"state": "all"}).content.decode()
    page = client.get(f"{LIST}{correction.pk}/change/").content.decode()
    assert "decided by its own proposer" in page


def test_others_are_not_asked_for_the_accounts_name(browse: Browse, correction: Correction) -> None:
    page = browse("Approver").get(address(correction)).content.decode()

    assert "account_name" not in page


@pytest.mark.parametrize(
    "given",
    [
        {"decision": "approve", "comment": "   "},
        {"decision": "reject"},
        {"decision": "perhaps", "comment": "Hm."},
        {"comment": "No decision."},
    ],
)
def test_a_decision_and_a_comment_are_required(
    browse: Browse, correction: Correction, given: dict[str, str]
) -> None:
    answer = browse("Approver").post(address(correction), given)

    assert answer.status_code == 400
    assert 'role="alert"' in answer.content.decode()
    assert unchanged(correction)


def test_a_forged_post_is_refused(person: Person, correction: Correction) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(person("ann", "Approver"))

    given = {"decision": "reject", "comment": "From another site."}
    assert client.post(address(correction), given).status_code == 403
    assert unchanged(correction)


def test_a_rejection_keeps_the_book_and_what_was_decided_is_not_decided_again(
    browse: Browse, correction: Correction
) -> None:
    client = browse("Approver")
    first = client.post(address(correction), {"decision": "reject", "comment": "A split."})
    again = client.post(address(correction), {"decision": "approve", "comment": "No, do it."})

    assert first.status_code == 302
    assert again.status_code == 409
    assert "It was rejected before. Nothing was changed." in again.content.decode()
    correction.refresh_from_db()
    assert (correction.status, correction.comment) == (Status.REJECTED, "A split.")
    assert LedgerEntry.objects.count() == 1
    assert Break.objects.get().status == Break.Status.OPEN


@pytest.mark.django_db(transaction=True)
def test_a_correction_overtaken_by_the_facts_is_not_applied_and_the_new_one_is_offered(
    sim: SimulatorServer, settings: LazySettings, account: BrokerAccount, browse: Browse
) -> None:
    correction = drifted(sim, settings, account)
    hold(sim, "AAPL", "55", "210")  # five more were sold by hand before anyone decided

    answer = browse("Approver").post(
        address(correction), {"decision": "approve", "comment": "Sold by hand."}
    )

    successor = Correction.objects.get(status=Status.PROPOSED)
    assert answer.status_code == 409
    assert "The facts moved" in answer.content.decode()
    assert address(successor) in answer.content.decode()
    assert successor.difference == -45
    assert Position.objects.get().qty == 100


@pytest.mark.django_db(transaction=True)
def test_after_a_rejection_an_operator_proposes_again_and_somebody_else_approves(
    sim: SimulatorServer, settings: LazySettings, account: BrokerAccount, browse: Browse
) -> None:
    correction = drifted(sim, settings, account)
    approver, operator = browse("Approver"), browse("Operator")
    approver.post(address(correction), {"decision": "reject", "comment": "Not sure."})
    propose = f"/reconciliation/break/{correction.subject_id}/propose/"

    assert operator.get(propose).status_code == 405
    assert approver.post(propose).status_code == 403
    assert operator.post(propose).status_code == 302
    second = Correction.objects.get(status=Status.PROPOSED)
    assert second.proposed_by is not None
    approver.post(address(second), {"decision": "approve", "comment": "Checked with the broker."})

    assert Position.objects.get().qty == Decimal(60)
    assert Break.objects.get().status == Break.Status.RESOLVED


@pytest.mark.django_db(transaction=True)
def test_an_operator_compares_now_and_a_viewer_may_not(
    sim: SimulatorServer, account: BrokerAccount, browse: Browse
) -> None:
    run = "/reconciliation/reconciliationreport/run/"

    assert browse("Viewer").post(run, {"account": account.pk}).status_code == 403
    assert not ReconciliationReport.objects.exists()
    answer = browse("Operator").post(run, {"account": account.pk})
    report = ReconciliationReport.objects.get()
    assert answer.headers["Location"].endswith(f"/reconciliationreport/{report.pk}/change/")


def drifted(sim: SimulatorServer, settings: LazySettings, account: BrokerAccount) -> Correction:
    """100 AAPL in the book; 40 sold by hand at the broker, seen twice."""
    settings.SECOND_LOOK_SECONDS = 0
    hold(sim, "AAPL", "100", "210")
    reconcile(account)
    hold(sim, "AAPL", "60", "210")
    reconcile(account)
    reconcile(account)
    return Correction.objects.select_related("position").get()
