"""Sectors: what a file says, what it would change, what an import and an override do."""

import threading
from io import StringIO
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from ordinis.accounts.models import BrokerAccount
from positions import sectors, seed
from positions.models import Instrument, Position, SectorChange
from positions.sector_file import MAX_BYTES, Parsed, parse
from tests.waiting import until


def errors(text: str | bytes) -> list[tuple[int, str]]:
    content = text if isinstance(text, bytes) else text.encode()
    return [(error.line, error.message) for error in parse(content).errors]


def file(*lines: str, header: str = "symbol,sector") -> Parsed:
    parsed = parse("\n".join((header, *lines)).encode())
    assert not parsed.errors
    return parsed


def imported(parsed: Parsed, **options: Any) -> SectorChange:
    given = {"actor": "ann", "reason": "The desk's own list.", **options}
    given.setdefault("digest", sectors.preview(parsed).digest)
    return sectors.apply(parsed, **given)


def overridden(symbol: str, sector: str, **options: Any) -> SectorChange:
    return sectors.override(
        symbol, sector, **{"actor": "ann", "reason": "The desk sees it so.", **options}
    )


def stored() -> list[dict[str, Any]]:
    tables = (Instrument.objects.values(), SectorChange.objects.values())
    return [dict(row) for table in tables for row in table]


# --- reading a file ---


def test_columns_stand_in_any_order_and_case_with_quotes_and_what_spreadsheets_add() -> None:
    text = '\ufeffName,SYMBOL,Sub_Industry,sector\r\n"Acme,  Inc.",brk.b,,Energy\r\n\r\n,,,\r\n'

    parsed = parse(text.encode())

    assert not parsed.errors
    row = parsed.rows[0]
    assert (row.line, row.symbol, row.sector) == (2, "BRK.B", "Energy")
    assert (row.name, row.sub_industry) == ("Acme, Inc.", None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (",Energy", "The symbol is missing"),
        ("BRK/B,Energy", "Write it as the broker does"),
        (f"{'A' * 33},Energy", "more than 32 characters"),
        ("AAPL,", "The sector is empty"),
        ("AAPL,Unknown", "Name its sector"),
        (f"AAPL,{'x' * 61}", "more than 60 characters"),
        ("AAPL,=1+1", "starts with ="),
        ("AAPL,+Energy", "starts with +"),
        ("AAPL,-Energy", "starts with -"),
        ("AAPL,@Energy", "starts with @"),
        ("AAPL,Ener\u202egy", "can't be shown"),
        ("AAPL,Energy,more", "3 values, the header names 2"),
        ("AAPL", "1 values, the header names 2"),
        ("MMM,Energy", "stands in line 2 already"),
        ('AAPL,"Energy', "The quotes of this line do not match"),
    ],
)
def test_a_line_that_is_wrong_is_named_by_its_number_with_what_to_do(line: str, words: str) -> None:
    found = errors(f"symbol,sector\nMMM,Industrials\n{line}\n")

    assert [number for number, _ in found] == [3]
    assert words in found[0][1]


def test_every_wrong_line_is_named_also_below_a_value_of_two_lines() -> None:
    text = 'symbol,sector,name\nA A,,"Two\nlines"\nMMM,Industrials,3M\nAAPL,Energy,=x\n'

    assert [line for line, _ in errors(text)] == [2, 2, 5]
    assert [row.symbol for row in parse(text.encode()).rows] == ["MMM"]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 1, "The file is empty"),
        (b"symbol,sector\n", 2, "no symbol below the header"),
        (b"symbol,gics\nA,B\n", 1, "no column 'gics'"),
        (b"symbol,name\nA,B\n", 1, "column sector is missing"),
        (b"symbol,sector,Symbol\n", 1, "stands here twice"),
        (b"symbol;sector\nA;Energy\n", 1, "not separated by commas"),
        (b"symbol,sector\nA,Energy\nB,\xe9nergie\n", 3, "not in UTF-8"),
        (b"PK\x03\x04rest", 1, "not a CSV text file"),
        ("symbol,sector\nA,Energy\n".encode("utf-16"), 1, "not a CSV text file"),
        (b"symbol,sector\n" + b"x" * MAX_BYTES, 1, "larger than 2 MB"),
        (b"symbol,sector\n" + b"\n" * 50_000 + b"A,Energy\n", 50_002, "more than 50,000 lines"),
    ],
)
def test_a_file_that_can_not_be_read_says_where_and_why(
    content: bytes, line: int, words: str
) -> None:
    found = errors(content)

    assert [number for number, _ in found] == [line]
    assert words in found[0][1]


# --- what counts ---


@pytest.mark.django_db
def test_a_symbol_counts_as_its_override_else_its_source_else_unknown() -> None:
    overridden("MMM", "Energy")
    Instrument.objects.filter(symbol="ABT").update(sector="")

    with CaptureQueriesContext(connection) as asked:
        found = sectors.sector_of(["MMM", "AOS", "ABT", "NOSUCH"])

    assert found == {"MMM": "Energy", "AOS": "Industrials", "ABT": "Unknown", "NOSUCH": "Unknown"}
    assert len(asked) == 1
    rows = Instrument.objects.filter(symbol__in=found)
    assert {row.symbol: row.counts_as for row in rows} == {
        symbol: sector for symbol, sector in found.items() if symbol != "NOSUCH"
    }


@pytest.mark.django_db
def test_work_to_do_is_what_either_side_holds_or_has_on_order_without_a_sector(
    account: BrokerAccount,
) -> None:
    Position.objects.create(account=account, symbol="OURS", qty=1, status="open")
    Position.objects.create(account=account, symbol="THEIRS", broker_qty=1)
    Position.objects.create(account=account, symbol="GONE")
    Position.objects.create(account=account, symbol="AAPL", qty=1, status="open")

    assert sectors.unknown_symbols(also=["ONORDER", "MMM"]) == ["ONORDER", "OURS", "THEIRS"]


# --- importing ---


@pytest.mark.django_db
def test_a_preview_tells_new_changed_unchanged_and_overridden_and_stores_nothing() -> None:
    overridden("AOS", "Financials")
    before = stored()

    shown = sectors.preview(
        file("NEWCO,Energy", "MMM,utilities", "AOS,Industrials", "ABT,Health Care")
    )

    assert [(row.symbol, row.after.sector) for row in shown.new] == [("NEWCO", "Energy")]
    assert [(row.symbol, row.differences) for row in shown.changed] == [
        ("MMM", [("sector", "Industrials", "Utilities")])
    ]
    assert shown.unchanged == 2
    assert [(row.symbol, row.override) for row in shown.overridden] == [("AOS", "Financials")]
    assert shown.new_sectors == []
    assert stored() == before


@pytest.mark.django_db
def test_an_import_does_what_was_shown_and_leaves_its_history() -> None:
    made = imported(
        file("NEWCO,Energy,New Co.,", "MMM,Utilities,,", "ABT,Health Care,,", header=HEADER)
    )

    row = Instrument.objects.get(symbol="MMM")
    assert (row.sector, row.name, row.source) == ("Utilities", "3M", "Import by ann")
    assert sectors.sector_of(["NEWCO"]) == {"NEWCO": "Energy"}
    assert (made.kind, made.actor, made.reason) == ("import", "ann", "The desk's own list.")
    assert made.changes == [
        {
            "symbol": "NEWCO",
            "before": {"sector": "", "name": ""},
            "after": {"sector": "Energy", "name": "New Co."},
        },
        {
            "symbol": "MMM",
            "before": {"sector": "Industrials"},
            "after": {"sector": "Utilities"},
        },
    ]
    assert Instrument.objects.get(symbol="ABT").source != "Import by ann"
    assert [change.of_symbol for change in sectors.history("MMM")] == [  # type: ignore[attr-defined]
        made.changes[1]
    ]


HEADER = "symbol,sector,name,sub_industry"


@pytest.mark.django_db
def test_an_import_leaves_an_override_standing() -> None:
    overridden("MMM", "Financials")

    imported(file("MMM,Utilities"))

    row = Instrument.objects.get(symbol="MMM")
    assert (row.sector, row.counts_as, row.overridden_by) == ("Utilities", "Financials", "ann")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reason": "  "}, "Say why"),
        ({"digest": "0" * 64}, "Look at the differences again"),
        ({"parsed": parse(b"symbol,sector\nMMM,Utilities\nAAPL,\n")}, "correct the lines"),
        ({"parsed": parse(b"symbol,sector\nMMM,Utilitties\n")}, "the sector Utilitties yet"),
        ({"parsed": parse(b"symbol,sector\nMMM,Industrials\n")}, "stored already"),
    ],
)
def test_an_import_that_is_refused_changes_nothing(options: dict[str, Any], words: str) -> None:
    before = stored()

    with pytest.raises(sectors.NotApplied, match=words):
        imported(**{"parsed": file("MMM,Utilities"), **options})

    assert stored() == before


@pytest.mark.django_db
def test_a_typo_is_shown_with_what_it_may_have_meant_and_passes_only_when_it_is_meant() -> None:
    parsed = file("MMM,Utilitties", "AOS,utilitties")

    found = sectors.preview(parsed).new_sectors

    assert [(row.name, row.lines, row.like) for row in found] == [
        ("Utilitties", [2, 3], "Utilities")
    ]
    imported(parsed, new_sectors=True)
    assert sectors.sector_of(["MMM", "AOS"]) == {"MMM": "Utilitties", "AOS": "Utilitties"}


@pytest.mark.django_db
@pytest.mark.parametrize("meanwhile", ["import", "override"])
def test_an_import_over_facts_that_moved_is_refused_with_the_new_differences(
    meanwhile: str,
) -> None:
    parsed = file("MMM,Utilities")
    digest = sectors.preview(parsed).digest
    if meanwhile == "import":
        imported(file("MMM,Materials"))
    else:
        overridden("MMM", "Materials")
    before = stored()

    with pytest.raises(sectors.Moved) as refused:
        imported(parsed, digest=digest)

    assert stored() == before
    now = refused.value.preview
    assert now.digest != digest
    imported(parsed, digest=now.digest)
    assert Instrument.objects.get(symbol="MMM").sector == "Utilities"


@pytest.mark.django_db(transaction=True)
def test_of_imports_at_once_of_the_same_preview_one_is_made() -> None:
    parsed = file("AAAA1,Energy", "AAAA2,Energy")
    digest = sectors.preview(parsed).digest
    outcomes: list[str] = []
    ready = threading.Barrier(6)

    def attempt() -> None:
        try:
            ready.wait()
            imported(parsed, digest=digest)
            outcomes.append("made")
        except sectors.Moved:
            outcomes.append("moved")
        finally:
            connection.close()

    for thread in (threads := [threading.Thread(target=attempt) for _ in range(6)]):
        thread.start()
    for thread in threads:
        thread.join()

    Instrument.objects.filter(symbol__in=("AAAA1", "AAAA2")).delete()  # kept between tests
    assert sorted(outcomes) == ["made", *["moved"] * 5]
    assert SectorChange.objects.count() == 1


@pytest.mark.django_db
def test_fifty_thousand_lines_take_seconds_and_a_bounded_number_of_queries() -> None:
    lines = [f"Q{number},Energy,Company {number}" for number in range(50_000)]
    parsed = file(*lines, header="symbol,sector,name")
    began = perf_counter()

    with CaptureQueriesContext(connection) as asked:
        digest = sectors.preview(parsed).digest
        imported(parsed, digest=digest)

    assert perf_counter() - began < 30  # a loaded machine; 3 s on an idle one
    assert len(asked) <= 20
    assert Instrument.objects.filter(source="Import by ann").count() == 50_000


@pytest.mark.django_db
def test_history_of_sectors_is_never_changed() -> None:
    overridden("MMM", "Energy")

    with pytest.raises(IntegrityError, match="append-only"):
        SectorChange.objects.update(actor="somebody else")


@pytest.mark.django_db
def test_the_seed_overwrites_nothing_that_was_imported_or_overridden() -> None:
    imported(file("MMM,Utilities"))
    Instrument.objects.filter(symbol="AAPL").delete()
    overridden("AAPL", "Energy")
    before = stored()

    seed.load()

    assert stored() == before


# --- overriding ---


@pytest.mark.django_db
def test_an_override_is_made_and_cleared_each_with_author_and_reason() -> None:
    overridden("mmm", "energy")
    row = Instrument.objects.get(symbol="MMM")
    assert (row.counts_as, row.overridden_by, row.override_reason) == (
        "Energy",
        "ann",
        "The desk sees it so.",
    )
    assert row.overridden_at is not None

    overridden("MMM", "", actor="bob", reason="The source is right after all.")

    row.refresh_from_db()
    assert (row.counts_as, row.overridden_by, row.overridden_at) == ("Industrials", "", None)
    assert [
        (change.kind, change.symbol, change.actor, change.of_symbol["after"])  # type: ignore[attr-defined]
        for change in sectors.history("MMM")
    ] == [
        ("override", "MMM", "bob", {"override_sector": ""}),
        ("override", "MMM", "ann", {"override_sector": "Energy"}),
    ]


@pytest.mark.django_db
def test_an_override_of_a_symbol_that_nothing_is_stored_of_makes_its_row() -> None:
    overridden("NEWCO", "Energy")

    row = Instrument.objects.get(symbol="NEWCO")
    assert (row.counts_as, row.sector, row.source) == ("Energy", "", "override")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("symbol", "sector", "options", "words"),
    [
        ("MMM", "Energy", {"reason": " "}, "Say why"),
        ("MMM", "Enregy", {}, "No symbol has the sector Enregy yet"),
        ("MMM", "unknown", {"new_sector": True}, "Name its sector"),
        ("MMM", "=Energy", {"new_sector": True}, "starts with ="),
        ("M MM", "Energy", {}, "is not a symbol"),
        ("MMM", "", {}, "no override that could be cleared"),
    ],
)
def test_an_override_that_is_refused_changes_nothing(
    symbol: str, sector: str, options: dict[str, Any], words: str
) -> None:
    before = stored()

    with pytest.raises(sectors.NotApplied, match=words):
        overridden(symbol, sector, **options)

    assert stored() == before


@pytest.mark.django_db
def test_a_new_sector_is_overridden_to_when_it_is_meant_and_is_in_use_from_then_on() -> None:
    overridden("MMM", "Conglomerates", new_sector=True)

    assert "Conglomerates" in sectors.known_sectors()
    overridden("AOS", "conglomerates")
    assert sectors.sector_of(["AOS"]) == {"AOS": "Conglomerates"}


@pytest.mark.django_db(transaction=True)
def test_an_override_waits_for_an_import_that_is_under_way() -> None:
    parsed = file("MMM,Utilities")
    digest = sectors.preview(parsed).digest
    done = threading.Event()

    def attempt() -> None:
        overridden("MMM", "Energy")
        done.set()
        connection.close()

    with transaction.atomic():
        imported(parsed, digest=digest)
        thread = threading.Thread(target=attempt)
        thread.start()
        until(_somebody_waits, seconds=10)
        assert not done.is_set()
    thread.join()

    row = Instrument.objects.get(symbol="MMM")
    kept = (row.sector, row.override_sector)
    overridden("MMM", "")
    imported(file("MMM,Industrials"))  # the instruments are kept between tests
    assert kept == ("Utilities", "Energy")


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted "
            "AND relation = 'positions_instrument'::regclass)"
        )
        return bool(cursor.fetchone()[0])


# --- the command ---


def run(path: Path, *arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command("import_sectors", str(path), *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return out.getvalue(), f"{err.getvalue()}{error}"
    return out.getvalue(), ""


@pytest.fixture
def list_of(tmp_path: Path) -> Any:
    def write(*lines: str) -> Path:
        path = tmp_path / "sectors.csv"
        path.write_text("\n".join(("symbol,sector", *lines)), encoding="utf-8")
        return path

    return write


@pytest.mark.django_db
def test_the_command_shows_the_differences_and_imports_with_a_reason(list_of: Any) -> None:
    out, err = run(list_of("MMM,Utilities", "NEWCO,Energy"), "--reason", "Our list.")

    assert not err
    assert "new NEWCO: sector: (none) → Energy" in out
    assert "changed MMM: sector: Industrials → Utilities" in out
    assert "1 new, 1 changed, 0 unchanged" in out
    assert sectors.sector_of(["MMM"]) == {"MMM": "Utilities"}
    made = SectorChange.objects.get()
    assert made.actor.startswith("command line (")
    assert made.reason == "Our list."


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("line", "arguments", "words"),
    [
        ("MMM,Utilities", ["--dry-run"], ""),
        ("MMM,Utilities", [], "--reason 'TEXT'"),
        ("MMM,Utilitties", ["--reason", "x"], "--new-sector"),
        ("MMM,", ["--reason", "x"], "line 2: The sector is empty"),
    ],
)
def test_the_command_imports_nothing_when_it_is_dry_or_something_is_wrong(
    list_of: Any, line: str, arguments: list[str], words: str
) -> None:
    before = stored()

    out, err = run(list_of(line), *arguments)

    assert words in err
    assert bool(err) == bool(words)
    assert "Imported" not in out
    assert stored() == before


@pytest.mark.django_db
def test_the_command_takes_a_new_sector_that_is_meant(list_of: Any) -> None:
    out, err = run(list_of("MMM,Utilitties"), "--reason", "x", "--new-sector")

    assert not err
    assert "new sector Utilitties: line 2; did you mean Utilities?" in out
    assert sectors.sector_of(["MMM"]) == {"MMM": "Utilitties"}


@pytest.mark.django_db
def test_the_command_says_so_when_there_is_no_such_file(tmp_path: Path) -> None:
    _, err = run(tmp_path / "none.csv", "--reason", "x")

    assert "can't be read" in err
