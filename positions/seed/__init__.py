"""Loads the shipped instruments and sectors. Never overwrites what is stored already."""

import csv
from datetime import date
from pathlib import Path

from positions.models import Instrument

_HERE = Path(__file__).parent
# The day on which the shipped files were gathered.
_AS_OF = date(2026, 11, 20)
_SOURCES = {
    "sp500-sectors.csv": "datasets/s-and-p-500-companies (PDDL 1.0), from Wikipedia",
    "more-symbols.csv": "Ordinis",
}


def load() -> int:
    """Adds the instruments that are missing; returns how many the files hold."""
    rows = [
        Instrument(
            symbol=row["symbol"],
            name=row["name"],
            sector=row["sector"],
            sub_industry=row["sub_industry"],
            source=source,
            as_of=_AS_OF,
        )
        for name, source in _SOURCES.items()
        for row in csv.DictReader((_HERE / name).read_text(encoding="utf-8").splitlines())
    ]
    Instrument.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)
