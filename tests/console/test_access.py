"""Who may see what, and that looking changes nothing."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client

from ordinis.console.groups import GROUPS, ensure_groups
from reconciliation.models import Correction
from tests.console.conftest import Browse, Person

LISTS = (
    "/orders/order/",
    "/positions/position/",
    "/positions/instrument/",
    "/reconciliation/break/",
    "/reconciliation/correction/",
    "/reconciliation/reconciliationreport/",
    "/reconciliation/snapshot/",
    "/reconciliation/rebuild/",
    "/risk/risklimits/",
    "/accounts/strategy/",
    "/accounts/brokeraccount/",
    "/alerts/alert/",
)
FOR_ADMINISTRATORS = ("/accounts/apitoken/", "/auth/user/", "/auth/group/")


@pytest.mark.django_db
def test_who_is_not_logged_in_is_sent_to_the_login() -> None:
    for path in ("/", *LISTS, *FOR_ADMINISTRATORS):
        answer = Client().get(path)

        assert answer.status_code == 302
        assert answer.headers["Location"] == f"/login/?next={path}"


@pytest.mark.django_db
def test_a_refresh_after_logging_out_reloads_the_page_instead_of_filling_it() -> None:
    for path in ("/live/today/", "/live/header/"):
        answer = Client().get(path)

        assert answer.headers["HX-Refresh"] == "true"
        assert answer.content == b""


def test_a_viewer_sees_every_page(browse: Browse, correction: Correction) -> None:
    client = browse("Viewer")
    one_of_each = (
        f"/positions/position/{correction.position_id}/change/",
        f"/reconciliation/break/{correction.subject_id}/change/",
        f"/reconciliation/correction/{correction.pk}/change/",
        f"/accounts/brokeraccount/{correction.account_id}/change/",
    )
    for path in ("/", "/live/today/", "/live/header/", *LISTS, *one_of_each):
        assert client.get(path).status_code == 200, path


def test_somebody_without_a_group_sees_no_page(browse: Browse) -> None:
    client = browse()
    for path in LISTS:
        assert client.get(path).status_code == 403, path


def test_somebody_without_a_group_is_told_so_and_shown_no_figure(
    browse: Browse, correction: Correction
) -> None:
    page = browse().get("/").content.decode()

    assert "You are in no group yet" in page
    assert "AAPL" not in page


def test_tokens_and_people_are_the_administrators(browse: Browse) -> None:
    viewer, administrator = browse("Viewer"), browse("Administrator")
    for path in FOR_ADMINISTRATORS:
        assert viewer.get(path).status_code == 403, path
        assert administrator.get(path).status_code == 200, path


@pytest.mark.django_db
def test_not_even_a_superuser_adds_a_row_by_hand() -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for path in set(LISTS) - {"/risk/risklimits/", "/accounts/strategy/"}:
        assert client.get(f"{path}add/").status_code == 403, path
        assert client.post(f"{path}add/", {}).status_code == 403, path


def test_a_page_that_only_shows_takes_no_post(browse: Browse, correction: Correction) -> None:
    client = browse("Administrator")

    assert client.post(f"/positions/position/{correction.position_id}/change/").status_code == 405
    assert client.post(f"/positions/position/{correction.position_id}/delete/").status_code == 403


def test_the_queues_own_tables_are_not_in_the_console() -> None:
    assert not [model for model in admin.site._registry if model._meta.app_label == "django_q"]


@pytest.mark.django_db
def test_making_the_groups_twice_changes_nothing() -> None:
    ensure_groups()
    before = {group.name: group.permissions.count() for group in Group.objects.all()}
    ensure_groups()

    assert before == {name: len(permissions) for name, permissions in GROUPS.items()}
    assert {group.name: group.permissions.count() for group in Group.objects.all()} == before


def test_an_administrator_can_not_change_a_superuser_or_become_one(
    browse: Browse, person: Person
) -> None:
    root = User.objects.create_superuser("root")
    somebody = person("somebody")
    client = browse("Administrator")

    assert client.post(f"/auth/user/{root.pk}/change/", {"username": "x"}).status_code == 403
    client.post(
        f"/auth/user/{somebody.pk}/change/",
        {"username": "somebody", "is_active": "on", "is_staff": "on", "is_superuser": "on"},
    )
    somebody.refresh_from_db()
    assert not somebody.is_superuser


def test_pages_carry_the_strict_policy_and_no_inline_script_or_style(
    browse: Browse, correction: Correction
) -> None:
    client = browse("Approver")
    for path in ("/", *LISTS, f"/reconciliation/correction/{correction.pk}/decide/"):
        answer = client.get(path)
        page = answer.content.decode()

        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert "<style" not in page
        assert " style=" not in page
        assert "<script>" not in page
