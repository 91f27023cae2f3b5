"""Which sector a symbol counts towards, and the only code that changes it: import and override.

Every change leaves a `SectorChange` in the same transaction. An import does exactly what its
preview showed, or nothing; it never takes an override away.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import F, Func, JSONField, QuerySet, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, NullIf
from django.utils import timezone

from positions.models import UNKNOWN_SECTOR, Instrument, Position, SectorChange
from positions.sector_file import LineError, Parsed, Row, clean, symbol_problem, text_problem

# `Instrument.counts_as`, asked of the database.
COUNTS_AS: Final = Coalesce(
    NullIf(F("override_sector"), Value("")),
    NullIf(F("sector"), Value("")),
    Value(UNKNOWN_SECTOR),
)
_OVERRIDE: Final = "override"
_BATCH: Final = 5_000


class NotApplied(Exception):
    """Nothing was changed; the text says why, and what to do next."""


class Moved(NotApplied):
    """What is stored is no longer what the preview rested on."""

    def __init__(self, now: "Preview") -> None:
        super().__init__(
            "What is stored or what the file says has moved since this was shown. Nothing was "
            "imported. Look at the differences again and confirm them."
        )
        self.preview = now


@dataclass(frozen=True, slots=True)
class Values:
    """What a source says of a symbol."""

    sector: str
    name: str
    sub_industry: str


@dataclass(frozen=True, slots=True)
class Change:
    """One symbol of a file, beside what is stored; `before` is None for a new one."""

    symbol: str
    before: Values | None
    after: Values
    # The override that stands over it, whatever the file says.
    override: str

    @property
    def differences(self) -> list[tuple[str, str, str]]:
        """Column, before and after, of what the file changes."""
        was = asdict(self.before) if self.before else {}
        now = asdict(self.after).items()
        return [(key, was.get(key, ""), value) for key, value in now if was.get(key, "") != value]

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Before and after of every column, in their order."""
        now = asdict(self.after)
        return list(zip(asdict(self.before or self.after).values(), now.values(), strict=True))


@dataclass(frozen=True, slots=True)
class NewSector:
    """A sector that no stored symbol has: meant, or a typo."""

    name: str
    lines: list[int]
    like: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What applying the file would do now."""

    errors: tuple[LineError, ...]
    new: list[Change]
    changed: list[Change]
    unchanged: int
    # Symbols of the file that go on counting as something else.
    overridden: list[Change]
    new_sectors: list[NewSector]
    # Of the file and of the stored rows that this rests on.
    digest: str


def sector_of(symbols: Iterable[str]) -> dict[str, str]:
    """What each symbol counts towards, "Unknown" where nobody has said: one query."""
    wanted = set(symbols)
    # One parameter, not hundreds: a book of 500 is judged twice as fast.
    among = RawSQL("SELECT unnest(%s::text[])", (list(wanted),))
    rows = Instrument.objects.filter(symbol__in=among).values_list("symbol", COUNTS_AS)
    return {**dict.fromkeys(wanted, UNKNOWN_SECTOR), **dict(rows)}


def unknown_symbols(also: Iterable[str] = ()) -> list[str]:
    """Symbols that either side holds, and those in `also`, which have no sector: work to do."""
    held = Position.objects.exclude(qty=0, broker_qty=0).values_list("symbol", flat=True)
    found = sector_of({*held, *also})
    return sorted(symbol for symbol, sector in found.items() if sector == UNKNOWN_SECTOR)


def known_sectors() -> list[str]:
    """Every sector that some symbol has, by source or by override."""
    overrides = Instrument.objects.order_by().values_list("override_sector", flat=True)
    used = Instrument.objects.order_by().values_list("sector", flat=True).union(overrides)
    return sorted(name for name in used if name)


def preview(parsed: Parsed) -> Preview:
    """Compares the file with all that is stored: one query."""
    stored = {row.symbol: row for row in Instrument.objects.all()}
    used = {name for row in stored.values() for name in (row.sector, row.override_sector) if name}
    # "energy" is Energy: another spelling is no sector of its own.
    spellings = {name.casefold(): name for name in sorted(used)}
    unused: dict[str, list[int]] = {}
    changes = []
    for row in parsed.rows:
        sector = row.sector
        if sector not in used:
            sector = spellings.setdefault(sector.casefold(), sector)
        if sector not in used:
            unused.setdefault(sector, []).append(row.line)
        changes.append(_change(row, sector, stored.get(row.symbol)))
    rests_on = json.dumps([[asdict(change) for change in changes], sorted(unused)])
    return Preview(
        errors=parsed.errors,
        new=[change for change in changes if change.before is None],
        changed=[change for change in changes if change.before and change.differences],
        unchanged=sum(change.before == change.after for change in changes),
        overridden=[row for row in changes if row.override not in ("", row.after.sector)],
        new_sectors=[
            NewSector(name, lines, next(iter(difflib.get_close_matches(name, used, 1)), ""))
            for name, lines in unused.items()
        ],
        digest=hashlib.sha256(rests_on.encode()).hexdigest(),
    )


def _change(row: Row, sector: str, stored: Instrument | None) -> Change:
    if stored is None:
        return Change(row.symbol, None, Values(sector, row.name or "", row.sub_industry or ""), "")
    return Change(
        row.symbol,
        Values(stored.sector, stored.name, stored.sub_industry),
        Values(sector, row.name or stored.name, row.sub_industry or stored.sub_industry),
        stored.override_sector,
    )


def apply(
    parsed: Parsed, *, actor: str, reason: str, digest: str, new_sectors: bool = False
) -> SectorChange:
    """Does what the preview of this digest showed. Raises NotApplied, or Moved with a new one."""
    reason = _given(reason)
    with transaction.atomic():
        _lock()
        now = preview(parsed)
        changes = [*now.new, *now.changed]
        if now.errors:
            raise NotApplied("Nothing was imported: correct the lines named, and try again.")
        if now.digest != digest:
            raise Moved(now)
        if now.new_sectors and not new_sectors:
            names = ", ".join(sector.name for sector in now.new_sectors)
            raise NotApplied(
                f"No symbol has the sector {names} yet. Correct the file, or say that it is meant."
            )
        if not changes:
            raise NotApplied("Nothing was imported: all of it is stored already.")
        source, today = f"Import by {actor}"[:120], timezone.localdate()
        Instrument.objects.bulk_create(
            [
                Instrument(symbol=row.symbol, source=source, as_of=today, **asdict(row.after))
                for row in changes
            ],
            batch_size=_BATCH,
            update_conflicts=True,
            unique_fields=("symbol",),
            update_fields=("sector", "name", "sub_industry", "source", "as_of"),
        )
        return SectorChange.objects.create(
            kind=SectorChange.Kind.IMPORT,
            actor=actor,
            reason=reason,
            changes=[_recorded(row.symbol, row.differences) for row in changes],
        )


def override(
    symbol: str, sector: str, *, actor: str, reason: str, new_sector: bool = False
) -> SectorChange:
    """Has a symbol count towards `sector` whatever its source says; empty: as its source says.

    Raises NotApplied.
    """
    symbol, sector, reason = clean(symbol).upper(), clean(sector), _given(reason)
    if problem := symbol_problem(symbol) or text_problem("sector", sector):
        raise NotApplied(problem)
    with transaction.atomic():
        _lock()
        used = known_sectors()
        if sector and sector not in used:
            sector = {name.casefold(): name for name in used}.get(sector.casefold(), sector)
        if sector and sector not in used and not new_sector:
            raise NotApplied(
                f"No symbol has the sector {sector} yet. Choose one that is in use, or say that "
                "the new one is meant."
            )
        today = timezone.localdate()
        row = Instrument.objects.filter(symbol=symbol).first() or Instrument(
            symbol=symbol, source=_OVERRIDE, as_of=today
        )
        was = row.override_sector
        if was == sector:
            raise NotApplied(
                f"The override of {symbol} is {sector} already."
                if sector
                else f"{symbol} has no override that could be cleared. Name a sector."
            )
        row.override_sector = sector
        row.override_reason, row.overridden_by = (reason, actor) if sector else ("", "")
        row.overridden_at = timezone.now() if sector else None
        row.save()
        return SectorChange.objects.create(
            kind=SectorChange.Kind.OVERRIDE,
            symbol=symbol,
            actor=actor,
            reason=reason,
            changes=[_recorded(symbol, [("override_sector", was, sector)])],
        )


def history(symbol: str) -> QuerySet[SectorChange]:
    """Every change of one symbol, newest first; `of_symbol` is its part of each."""
    part = Func(
        F("changes"),
        Value("$[*] ? (@.symbol == $symbol)"),
        Value({"symbol": symbol}, output_field=JSONField()),
        function="jsonb_path_query_first",
        output_field=JSONField(),
    )
    # An import's own list may hold fifty thousand rows: it stays in the database.
    return (
        SectorChange.objects.filter(changes__contains=[{"symbol": symbol}])
        .defer("changes")
        .annotate(of_symbol=part)
    )


def _recorded(symbol: str, differences: list[tuple[str, str, str]]) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "before": {column: was for column, was, _ in differences},
        "after": {column: now for column, _, now in differences},
    }


def _given(reason: str) -> str:
    reason = reason.replace("\0", "").strip()  # which no text column takes
    if not reason:
        raise NotApplied("Say why: a reason is required, and stays in the history.")
    return reason


def _lock() -> None:
    """Keeps every other writer of instruments out until the end, the seed included: rows that are
    not there yet can't be locked one by one. Readers never wait for it."""
    with connection.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{Instrument._meta.db_table}" IN SHARE ROW EXCLUSIVE MODE')
