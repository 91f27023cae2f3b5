"""The console shows what was told, and tests the channels; it never shows an address."""

import pytest
from django.test import Client
from django.urls import reverse

from ordinis.alerts.jobs import tell
from ordinis.alerts.models import Alert, AlertChannel, AlertMessage
from tests.alerts.conftest import Raise, Receiver, states
from tests.console.conftest import Browse

pytestmark = pytest.mark.django_db(transaction=True)

LIST, TEST = "/alerts/alert/", "/alerts/alert/test/"


def page(client: Client, alert: Alert) -> str:
    answer = client.get(reverse("admin:alerts_alert_change", args=(alert.pk,)))
    assert answer.status_code == 200
    return answer.content.decode()


def test_an_alerts_page_shows_what_was_sent_and_what_failed(
    both: tuple[Receiver, Receiver], problem: Raise, browse: Browse
) -> None:
    _, mail = both
    mail.status = 500
    alert = problem()
    tell()
    client = browse("Viewer")

    shown = page(client, alert)
    listed = client.get(LIST).content.decode()

    assert [word for word in ("ops", "mail", "Sent", "Waiting", "error=500") if word in shown] == [
        "ops",
        "mail",
        "Sent",
        "Waiting",
        "error=500",
    ]
    assert "1 sent, 1 waiting" in listed
    assert "Failing" in listed
    for text in (shown, listed):
        assert "hunter22" not in text
        assert "token-of-secrets" not in text
    assert "Send a test alert" not in listed
    assert "Mark as seen to" not in shown


def test_an_alert_of_the_whole_installation_is_shown_on_all_pages(
    problem: Raise, browse: Browse
) -> None:
    alert = problem("process_silent", of=None)
    client = browse("Viewer")

    assert "The whole installation" in page(client, alert)
    assert "Process without a sign of life" in client.get("/").content.decode()
    assert "no channel is set up" in client.get(LIST).content.decode()


@pytest.mark.parametrize("group", ["Operator", "Administrator"])
def test_a_test_alert_goes_to_every_channel_and_its_outcome_is_shown(
    both: tuple[Receiver, Receiver], browse: Browse, group: str
) -> None:
    ops, mail = both
    mail.status = 401
    client = browse(group)
    assert "Send a test alert" in client.get(LIST).content.decode()

    shown = client.post(TEST, follow=True).content.decode()

    assert ops.titles == ["SIMULATED · Test alert"]
    assert f"Asked for by {group.lower()}." in ops.last
    assert "On ops: The channel took it." in shown
    assert "On mail: " in shown
    assert "error=401" in shown
    assert "hunter22" not in shown
    assert AlertChannel.objects.get(name="mail").failures == 1


def test_who_may_not_test_sends_nothing(ops: Receiver, browse: Browse) -> None:
    assert browse("Viewer").post(TEST).status_code == 403
    assert browse("Operator").get(TEST).status_code == 405
    assert ops.messages == []
    assert AlertMessage.objects.count() == 0


def test_a_person_marks_an_incident_that_nothing_ends_as_seen_to(
    ops: Receiver, problem: Raise, browse: Browse
) -> None:
    alert = problem("late_report")
    tell()
    close = reverse("admin:alerts_alert_close", args=(alert.pk,))
    assert browse("Viewer").post(close).status_code == 403
    assert Alert.objects.get().ended_at is None

    client = browse("Operator")
    assert "Mark as seen to" in page(client, alert)
    client.post(close)
    tell()

    assert Alert.objects.get().ended_at is not None
    assert ops.titles[-1] == "SIMULATED · main · Over: Late report on an order"
    assert states() == ["sent", "sent"]
    assert "Mark as seen to" not in page(client, alert)
