"""Sectors in the console: work to do, an override, and an import from file to confirmation."""

import re
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from orders.models import Order
from ordinis.accounts.models import BrokerAccount, Strategy
from positions import sectors
from positions.models import Instrument, SectorChange
from tests.conftest import Api
from tests.console.conftest import Browse, Person, held

LIST = "/positions/instrument/"
IMPORT = "/positions/instrument/import/"
OVERRIDE = "/positions/instrument/MMM/override/"
PAGE = "/positions/instrument/MMM/change/"


@pytest.fixture
def manager(person: Person) -> Client:
    """Somebody who may change sectors, whatever the groups include."""
    user = person("ann", "Viewer")
    user.user_permissions.add(
        Permission.objects.get(content_type__app_label="positions", codename="change_instrument")
    )
    client = Client()
    client.force_login(user)
    return client


def stored() -> list[dict[str, Any]]:
    tables = (Instrument.objects.values(), SectorChange.objects.values())
    return [dict(row) for table in tables for row in table]


def upload(client: Client, *lines: str, header: str = "symbol,sector", ends: str = "\r\n") -> Any:
    content = ends.join((header, *lines, "")).encode()
    return client.post(IMPORT, {"file": SimpleUploadedFile("sectors.csv", content)})


def carried(page: str) -> dict[str, str]:
    """What the browser sends back from the confirmation: a form's lines end in CR LF, and the
    first end of line after the tag is the tag's."""
    text = re.search(r'<textarea name="text" hidden>\n(.*?)</textarea>', page, re.S)
    digest = re.search(r'name="digest" value="(\w+)"', page)
    assert text
    assert digest
    plain = unescape(text[1]).replace("\r\n", "\n").replace("\n", "\r\n")
    return {"text": plain, "digest": digest[1]}


def confirm(client: Client, page: str, **given: str) -> Any:
    return client.post(IMPORT, {**carried(page), "reason": "Our own list.", **given})


def told(answer: Any) -> str:
    return str(answer.content.decode())


@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_a_file_is_shown_first_and_imported_when_it_is_confirmed(
    manager: Client, ends: str
) -> None:
    before = stored()

    shown = upload(
        manager,
        'MMM,Utilities,"3M <b> & ""Sons"""',
        "NEWCO,energy,",
        "ABT,Health Care,",
        header="symbol,sector,name",
        ends=ends,
    )

    page = told(shown)
    assert shown.status_code == 200
    assert "1 new, 1 changed, 1 unchanged" in page
    assert "<td>Industrials → <b>Utilities</b></td>" in page
    assert "3M &lt;b&gt; &amp;" in page
    assert stored() == before

    done = confirm(manager, page)

    assert (done.status_code, done.headers["Location"]) == (302, LIST)
    assert "Imported: 2 instruments." in told(manager.get(LIST))
    row = Instrument.objects.get(symbol="MMM")
    assert (row.sector, row.name) == ("Utilities", '3M <b> & "Sons"')
    made = SectorChange.objects.get()
    assert (made.actor, made.reason, len(made.changes)) == ("ann", "Our own list.", 2)


def test_errors_are_named_by_line_and_nothing_can_be_confirmed(manager: Client) -> None:
    before = stored()

    answer = upload(manager, "MMM,Utilities", "A/B,Energy", "AOS,=1+1")

    page = told(answer)
    assert answer.status_code == 400
    assert "2 errors in sectors.csv" in page
    assert '<th scope="row" class="n">3</th><td>&#x27;A/B&#x27; is not a symbol' in page
    assert '<th scope="row" class="n">4</th><td>The sector starts with =' in page
    assert 'name="digest"' not in page
    assert stored() == before


def test_no_file_and_a_file_of_something_else_are_told_from_each_other(manager: Client) -> None:
    nothing = manager.post(IMPORT, {})
    sheet = manager.post(IMPORT, {"file": SimpleUploadedFile("a.xlsx", b"PK\x03\x04\0\0")})

    assert (nothing.status_code, sheet.status_code) == (400, 400)
    assert "Choose a CSV file first." in told(nothing)
    assert "not a CSV text file" in told(sheet)


def test_what_moved_since_the_preview_is_refused_and_shown_again(manager: Client) -> None:
    page = told(upload(manager, "MMM,Utilities"))
    sectors.override("MMM", "Energy", actor="bob", reason="Sees it so.")
    before = stored()

    refused = confirm(manager, page)

    again = told(refused)
    assert refused.status_code == 409
    assert "Nothing was imported. Look at the differences again" in again
    assert "the override Energy stays" in again
    assert stored() == before
    assert confirm(manager, again).status_code == 302
    assert Instrument.objects.get(symbol="MMM").sector == "Utilities"


def test_a_text_that_is_not_the_one_shown_is_refused(manager: Client) -> None:
    page = told(upload(manager, "MMM,Utilities"))
    before = stored()

    assert confirm(manager, page, text="symbol,sector\r\nMMM,Energy").status_code == 409
    assert stored() == before


def test_an_import_needs_a_reason_and_a_tick_for_a_new_sector(manager: Client) -> None:
    page = told(upload(manager, "MMM,Utilitties"))
    before = stored()
    assert "Utilitties, line 2. Did you mean Utilities?" in page

    no_reason = confirm(manager, page, reason=" ")
    no_tick = confirm(manager, page)

    assert (no_reason.status_code, no_tick.status_code) == (400, 400)
    assert "Say why" in told(no_reason)
    assert "No symbol has the sector Utilitties yet" in told(no_tick)
    assert "Our own list.</textarea>" in told(no_tick)
    assert stored() == before
    assert confirm(manager, told(no_tick), new_sectors="on").status_code == 302
    assert Instrument.objects.get(symbol="MMM").sector == "Utilitties"


def test_the_largest_file_is_carried_from_preview_to_confirmation(manager: Client) -> None:
    lines = [f"Q{number},Energy,{'C' * 21} {number}" for number in range(50_000)]
    answer = upload(manager, *lines, header="symbol,sector,name", ends="\n")

    page = told(answer)
    assert "50,000 new, 0 changed, 0 unchanged" in page
    assert "The first 500 of 50,000." in page
    assert confirm(manager, page).status_code == 302
    assert Instrument.objects.filter(sector="Energy").count() > 50_000


def test_who_may_not_change_sectors_is_refused_and_is_shown_no_form(browse: Browse) -> None:
    viewer = browse("Viewer")
    before = stored()

    for answer in (
        viewer.get(IMPORT),
        upload(viewer, "MMM,Utilities"),
        viewer.post(IMPORT, {"text": "", "digest": "", "reason": "x"}),
        viewer.post(OVERRIDE, {"sector": "Energy", "reason": "x"}),
    ):
        assert answer.status_code == 403

    assert stored() == before
    assert IMPORT not in told(viewer.get(LIST))
    assert OVERRIDE not in told(viewer.get(PAGE))


def test_who_is_in_no_group_sees_no_instrument_and_whoever_is_not_logged_in_the_login(
    browse: Browse,
) -> None:
    assert browse().get(PAGE).status_code == 403
    assert Client().get(IMPORT).status_code == 302
    assert Client().post(OVERRIDE, {}).status_code == 302


def test_an_import_and_an_override_need_the_token_of_the_form(person: Person) -> None:
    user = person("root")
    user.is_superuser = True
    user.save()
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)

    assert upload(client, "MMM,Utilities").status_code == 403
    assert client.post(OVERRIDE, {"sector": "Energy", "reason": "x"}).status_code == 403


def test_a_get_overrides_nothing(manager: Client) -> None:
    assert manager.get(OVERRIDE, {"sector": "Energy", "reason": "x"}).status_code == 405
    assert not SectorChange.objects.exists()


def test_an_override_is_made_and_cleared_on_the_instruments_page(manager: Client) -> None:
    answer = manager.post(OVERRIDE, {"sector": "Energy", "reason": "Mostly pipelines."})

    assert (answer.status_code, answer.headers["Location"]) == (302, PAGE)
    page = told(manager.get(PAGE))
    assert "MMM counts towards the sector Energy now." in page
    assert "Override: none → <b>Energy</b>" in page
    assert "“Mostly pipelines.”" in page
    assert "Override by ann" in told(manager.get(LIST, {"q": "MMM"}))

    manager.post(OVERRIDE, {"sector": "Energy", "clear": "yes", "reason": "Not any more."})

    page = told(manager.get(PAGE))
    assert "MMM counts towards the sector Industrials now." in page
    assert "Override: Energy → <b>none</b>" in page


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sector": "Energy", "reason": ""}, "Say why"),
        ({"sector": "", "reason": "x"}, "Name the sector"),
        ({"sector": "Enregy", "reason": "x"}, "No symbol has the sector Enregy yet"),
        ({"sector": "@Energy", "new_sector": "on", "reason": "x"}, "starts with @"),
    ],
)
def test_an_override_that_is_refused_says_why_and_keeps_what_was_typed(
    manager: Client, given: dict[str, str], words: str
) -> None:
    before = stored()

    answer = manager.post(OVERRIDE, given)

    assert answer.status_code == 400
    assert words in told(answer)
    assert f'value="{given["sector"]}">' in told(answer)
    assert stored() == before


def test_sectors_in_use_are_offered(manager: Client) -> None:
    sectors.override("AOS", "Pipes", actor="bob", reason="x", new_sector=True)

    page = told(manager.get(PAGE))

    for name in ("Energy", "ETF: leveraged", "Pipes"):
        assert f'<option value="{name}">' in page


def test_symbols_held_or_on_order_without_a_sector_are_listed_and_linked(
    manager: Client, strategy: Strategy
) -> None:
    held(strategy.account, "OURS", "5", broker="0")
    held(strategy.account, "AAPL", "5")
    for symbol, status in (("ONORDER", "new"), ("ENDED", "filled")):
        Order.objects.create(
            account=strategy.account,
            strategy=strategy,
            client_order_id=symbol,
            fingerprint="",
            symbol=symbol,
            side="buy",
            qty=Decimal(5),
            type="limit",
            time_in_force="day",
            limit_price=Decimal(10),
            status=status,
            correlation_id="c",
            chain=uuid4(),
        )

    page = told(manager.get(LIST))

    assert "2 symbols held or on order have no sector" in page
    links = re.findall(r'instrument/(\w+)/change/">(\w+)</a>[,<]', page.split("no sector")[1])
    assert links[:2] == [("ONORDER", "ONORDER"), ("OURS", "OURS")]

    answer = manager.post(
        "/positions/instrument/OURS/override/", {"sector": "Energy", "reason": "x"}
    )
    assert answer.status_code == 302
    page = told(manager.get(LIST))
    assert "1 symbol held or on order has no sector" in page


def test_the_page_of_a_symbol_that_nothing_is_stored_of_says_so(browse: Browse) -> None:
    viewer = browse("Viewer")

    assert "knows nothing of NEWCO yet" in told(viewer.get("/positions/instrument/NEWCO/change/"))
    assert viewer.get("/positions/instrument/new-co/change/").status_code in (302, 404)
    assert not Instrument.objects.filter(symbol="NEWCO").exists()


def test_the_list_is_filtered_by_what_counts(manager: Client) -> None:
    Instrument.objects.filter(symbol="ABT").update(sector="")
    sectors.override("MMM", "Energy", actor="bob", reason="x")

    def symbols(sector: str) -> set[str]:
        page = told(manager.get(LIST, {"sector": sector}))
        return set(re.findall(r"instrument/([\w.]+)/change/", page.split("result_list")[1]))

    assert symbols("Unknown") == {"ABT"}
    assert "MMM" in symbols("Energy")
    assert "MMM" not in symbols("Industrials")


def test_positions_say_what_counts_and_unknown_where_nobody_has_said(
    manager: Client, account: BrokerAccount, api: Api
) -> None:
    mmm, other = held(account, "MMM", "5"), held(account, "NOSUCH", "5")
    sectors.override("MMM", "Financials", actor="bob", reason="x")

    listed = told(manager.get("/positions/position/"))

    assert '<td class="field-sector">Financials</td>' in listed
    assert '<td class="field-sector">Unknown</td>' in listed
    for row, sector in ((mmm, "Financials"), (other, "Unknown")):
        page = told(manager.get(f"/positions/position/{row.pk}/change/"))
        assert f'instrument/{row.symbol}/change/">{sector}</a>' in page
        assert api.get(f"/positions/{row.symbol}").json()["sector"] == sector
    assert [row["sector"] for row in api.get("/positions").json()["items"]] == [
        "Financials",
        "Unknown",
    ]


def test_the_pages_carry_the_strict_policy_and_no_inline_script_or_style(manager: Client) -> None:
    sectors.override("MMM", "Energy", actor="bob", reason="x")
    for answer in (
        manager.get(LIST),
        manager.get(PAGE),
        manager.get(IMPORT),
        upload(manager, "MMM,Utilitties"),
    ):
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        for forbidden in ("<style", " style=", "<script>", " onclick="):
            assert forbidden not in told(answer)
