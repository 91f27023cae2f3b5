"""Daily reports in the console: who sees them, that page, CSV and command tell the same, and that
no look stores anything."""

import csv
import io
import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from ordinis.accounts.models import BrokerAccount, Strategy
from ordinis.console import csv_text
from ordinis.console.daily_text import as_csv, as_lines, shown
from reconciliation import daily
from reconciliation.daily_cells import Cell
from reconciliation.daily_tables import tables
from reconciliation.models import Break, DailyReport, Kind, Rebuild
from risk.figures import database_now
from risk.models import TradingChange
from tests.console.browsing import assert_fits
from tests.console.conftest import PASSWORD, Browse, Person
from tests.reconciliation.days import DUE, ENDS, compared, et, filled, opened, placed

LIST = "/reconciliation/dailyreport/"


@pytest.fixture
def account(db: None) -> BrokerAccount:
    return opened()


@pytest.fixture
def report(account: BrokerAccount) -> DailyReport:
    """Friday's: one order that filled, one denied, a comparison, an open break, a halt."""
    strategy = Strategy.objects.create(account=account, name="rsi")
    filled(placed(strategy, "filled"), "100", "70.10", profit="-12.50")
    placed(strategy, "denied", violations=[{"code": "max_positions"}])
    compared(account, et("11:00:00"))
    Break.objects.create(
        account=account,
        kind=Kind.QUANTITY,
        subject="position/KO",
        symbol="KO",
        local=100,
        broker=60,
        value=Decimal("2400.50"),
        severity="warning",
        explanation={"code": "fill_on_its_way", "client_order_id": "ko-1", "qty": "40"},
        first_seen=et("14:10:00"),
        last_seen=et("14:10:00"),
    )
    TradingChange.objects.create(
        account=account,
        kind="person",
        from_state="active",
        to_state="halted",
        actor="ann",
        reason='=HYPERLINK("http://example.org")',
        at=et("12:00:00"),
    )
    BrokerAccount.objects.update(equity=Decimal("52596.25"), as_of=ENDS)
    daily.make_due(DUE)
    return DailyReport.objects.get(day="2026-11-20")


def page_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.content
    return str(answer.content.decode())


def cells_of(page: str) -> list[str]:
    found = re.findall(r"<(?:t[dh]|d[td])\b[^>]*>(.*?)</(?:t[dh]|d[td])>", page, re.S)
    return [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in found]


def rows_of(text: str) -> dict[str, list[list[str]]]:
    """A CSV's rows by section, without the headers."""
    sections: dict[str, list[list[str]]] = {}
    for row in csv.reader(io.StringIO(text)):
        if row and row[0] != "Section":
            sections.setdefault(row[0], []).append(row[1:])
    return sections


def printed(*arguments: str, **options: Any) -> str:
    file = io.StringIO()
    call_command("report", *arguments, stdout=file, **options)
    return file.getvalue()


def test_the_page_tells_the_day_in_words_with_times_in_eastern_time(
    browse: Browse, report: DailyReport
) -> None:
    cells = cells_of(page_of(browse("Viewer"), f"{LIST}{report.pk}/change/"))

    for told in (
        *("Final", "2026-11-19 16:10:00 ET", "2026-11-20 16:10:00 ET", "$52,596.25"),
        *("$7,010.00", "\N{MINUS SIGN}$12.50", "max_positions", "Quantity differs", "$2,400.50"),
        *("2 h", "Order error rate", "< 5 %", "2026-11-20 12:00:00 ET", "ann"),
    ):
        assert told in cells
    assert any("Order ko-1 of ours is open" in cell for cell in cells)


def test_page_csv_and_command_tell_the_same(browse: Browse, report: DailyReport) -> None:
    client = browse("Viewer")
    told = tables(report.figures)

    page = page_of(client, f"{LIST}{report.pk}/change/")
    answer = client.get(f"{LIST}{report.pk}/csv/")
    by_command = printed("--date", "2026-11-20", "--account", "main")
    csv_by_command = printed("--date", "2026-11-20", "--account", "main", "--csv")

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="main-2026-11-20.csv"'
    assert answer.content.decode() == csv_by_command == as_csv(told)
    assert by_command == "".join(f"{line}\n" for line in as_lines(told))
    on_the_page = cells_of(page)
    for table in told:
        assert f'<h2 id="{table.key}">{table.title}</h2>' in page
        for row in table.rows:
            for cell in row:
                assert re.sub(r"\s+", " ", shown(cell)) in on_the_page
                assert shown(cell) in by_command


def test_the_csv_has_plain_numbers_and_no_formula(report: DailyReport) -> None:
    sections = rows_of(as_csv(tables(report.figures)))

    fills = dict(sections["Fills"])
    assert fills["Bought"] == "7010"
    assert fills["Realised profit"] == "-12.5"
    (halt,) = sections["Trading state and breaker"]
    assert halt[0] == "2026-11-20 12:00:00 ET"
    assert halt[-1] == '\'=HYPERLINK("http://example.org")'


@pytest.mark.parametrize("begin", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_text_that_a_spreadsheet_would_calculate_gets_an_apostrophe(begin: str) -> None:
    assert csv_text.cell(begin) == f"'{begin}"


@pytest.mark.parametrize("text", ["", "a=b", "1-1", " =1", "'=1"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert csv_text.cell(text) == text


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (Cell(None, "dollars"), "–"),
        (Cell("", "text"), "–"),
        (Cell("0", "dollars"), "$0.00"),
        (Cell("12.5", "signed_dollars"), "+$12.50"),
        (Cell("36.37", "number", "%"), "36.37 %"),
        (Cell(1234, "count"), "1,234"),
        (Cell("0.2", "span"), "200 ms"),
        (Cell(7200, "span"), "2 h"),
        (Cell("2026-11-20T21:10:00+00:00", "moment"), "2026-11-20 16:10:00 ET"),
    ],
)
def test_a_cell_is_written_by_its_unit(cell: Cell, words: str) -> None:
    assert shown(cell) == words


def test_an_empty_day_says_so_in_every_section(browse: Browse, account: BrokerAccount) -> None:
    daily.make_due(DUE)
    row = DailyReport.objects.get(day="2026-11-20")

    page = page_of(browse("Viewer"), f"{LIST}{row.pk}/change/")

    for told in (
        "None opened, ended or stands.",
        "None was proposed or decided, and none waits.",
        "No order was denied.",
        "Nothing changed.",
        "None was raised, and none stands.",
    ):
        assert told in page


def test_a_rebuild_is_told_with_who_and_why(report: DailyReport, account: BrokerAccount) -> None:
    Rebuild.objects.create(
        account=account,
        actor="ann",
        reason="The book was lost.",
        at=et("12:30:00"),
        changes=[{"symbol": "KO"}],
        cash_before=Decimal("1.50"),
        cash_after=Decimal(-2),
    )
    DailyReport.objects.all().delete()
    daily.make_due(DUE)

    (told,) = rows_of(printed("--date", "2026-11-20", "--csv"))["Rebuilds of the book"]

    assert told == ["2026-11-20 12:30:00 ET", "ann", "The book was lost.", "1", "1.5", "-2"]


def test_the_list_names_each_day_with_what_matters(browse: Browse, report: DailyReport) -> None:
    page = page_of(browse("Viewer"), LIST)
    cells = cells_of(page)

    assert cells[cells.index("2026-11-20") :][:4] == ["2026-11-20", "main", "2", "1"]
    assert page.index("2026-11-20") < page.index("2026-11-19")
    assert f'href="{LIST}{report.pk}/change/' in page


def test_the_list_never_reads_the_figures_and_asks_as_often_for_many(
    browse: Browse, account: BrokerAccount
) -> None:
    client = browse("Viewer")
    daily.make_due(et("16:15:00"))

    def asked() -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            page_of(client, LIST)
        return [query["sql"] for query in captured]

    of_five = asked()
    daily.make_due(DUE.replace(day=27))
    of_nine = asked()

    assert DailyReport.objects.count() == 9
    assert len(of_nine) == len(of_five), "\n".join(of_nine)
    assert not [sql for sql in of_nine if '"reconciliation_dailyreport"."figures",' in sql]


def test_the_day_so_far_is_counted_and_not_kept(browse: Browse, account: BrokerAccount) -> None:
    now = database_now()
    placed(Strategy.objects.create(account=account, name="rsi"), "filled", at=now)

    page = page_of(browse("Viewer"), f"{LIST}so-far/{account.pk}/")

    assert "So far: the day is not over." in page
    assert "So far" in cells_of(page)
    assert f'href="{LIST}so-far/{account.pk}/csv/">CSV</a>' in page
    assert not DailyReport.objects.exists()
    assert page_of(browse("Operator"), LIST).count(f"{LIST}so-far/{account.pk}/") == 1


@pytest.mark.parametrize("address", ["", "{}/change/", "{}/csv/", "so-far/{}/"])
def test_only_who_may_see_reports_does(
    browse: Browse, report: DailyReport, address: str, account: BrokerAccount
) -> None:
    key = account.pk if "so-far" in address else report.pk
    path = LIST + address.format(key)

    assert browse().get(path).status_code == 403
    assert Client().get(path).status_code == 302
    assert browse("Viewer").get(path).status_code == 200


@pytest.mark.parametrize("address", ["{}/change/", "{}/csv/", "so-far/{}/"])
def test_nothing_can_be_sent_to_a_report(
    browse: Browse, report: DailyReport, address: str, account: BrokerAccount
) -> None:
    key = account.pk if "so-far" in address else report.pk
    before = report.figures

    answer = browse("Administrator").post(LIST + address.format(key), {"figures": "{}"})

    assert answer.status_code == 405
    report.refresh_from_db()
    assert report.figures == before


def test_reports_have_their_place_in_the_menu(browse: Browse, account: BrokerAccount) -> None:
    assert f'<a href="{LIST}" aria-current="page">Reports</a>' in page_of(browse("Viewer"), LIST)


def test_an_unknown_account_or_report_is_not_found(browse: Browse, account: BrokerAccount) -> None:
    client = browse("Viewer")

    assert client.get(f"{LIST}999999/csv/").status_code == 404
    assert client.get(f"{LIST}so-far/999999/").status_code == 404


def test_the_command_counts_a_day_that_has_no_report(account: BrokerAccount) -> None:
    out = printed()

    assert re.search(r"^State +So far$", out, re.M)
    assert re.search(r"^Account +main \(simulated\)$", out, re.M)
    assert not DailyReport.objects.exists()


def test_the_command_takes_all_accounts_but_a_csv_is_of_one(account: BrokerAccount) -> None:
    opened("other")

    assert len(re.findall(r"^== Report ==$", printed(), re.M)) == 2
    with pytest.raises(CommandError, match="add --account"):
        printed("--csv")
    assert rows_of(printed("--csv", "--account", "other"))["Report"][0][1] == "other (simulated)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--date", "20.11.2026"), "is no date; write it as 2026-11-20"),
        (("--date", "2026-11-21"), "does not trade on 2026-11-21"),
        (("--date", "2100-01-04"), "2100"),
        (("--account", "nobody"), "no account 'nobody'"),
    ],
)
def test_the_command_says_what_is_wrong(
    account: BrokerAccount, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        printed(*arguments)


def test_the_report_fits_a_window_and_prints_without_the_frame(
    live_server: LiveServer,
    report: DailyReport,
    person: Person,
    page: Page,
    complaints: list[str],
) -> None:
    person("ann", "Viewer")
    page.goto(f"{live_server.url}{LIST}")
    page.get_by_label("User name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="2026-11-20").click()

    expect(page.get_by_role("heading", name="Report of 2026-11-20: main")).to_be_visible()
    expect(page.get_by_role("row", name="Order error rate < 5 % 0 % yes")).to_be_visible()
    assert_fits(page)
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Pages")).to_be_hidden()
    expect(page.get_by_role("link", name="CSV")).to_be_hidden()
    expect(page.get_by_text("$7,010.00").first).to_be_visible()
    assert complaints == []
