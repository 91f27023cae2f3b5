"""A daily report as tables: the one description from which page, CSV and command are written, so
that they can't tell different things.
"""

from collections.abc import Mapping
from typing import Final

from positions.models import CashEntry
from reconciliation import daily_lists
from reconciliation.daily_cells import FACTS, Cell, Figures, Table, count, label, pairs, text
from reconciliation.daily_counts import OUTCOMES
from reconciliation.scorecard_targets import PER_CENT, SPECS, WINDOWS

_WINDOW_WORDS: Final = {"day": "Day", "five_days": "5 days", "twenty_days": "20 days"}
_OUTCOME_WORDS: Final = {
    "never_arrived": "Never arrived",
    **{each: each.capitalize() for each in OUTCOMES if each != "never_arrived"},
}


def tables(figures: Figures) -> list[Table]:
    """All sections, in the order in which they are read."""
    return [
        _head(figures),
        _scorecard(figures["scorecard"]),
        _reconciliation(figures["reconciliation"]),
        daily_lists.breaks_by_kind(figures["breaks"]),
        daily_lists.breaks(figures["breaks"]),
        daily_lists.corrections(figures["corrections"]),
        _orders(figures["orders"]),
        _denials(figures["denials"]),
        _money(figures),
        _cash(figures),
        daily_lists.trading(figures["trading"]),
        daily_lists.alerts(figures["alerts"]),
        daily_lists.rebuilds(figures["rebuilds"]),
    ]


def _head(figures: Figures) -> Table:
    broker = figures["account_figures"]
    return Table(
        key="report",
        title="Report",
        header=FACTS,
        rows=pairs(
            [
                ("Account", text(f"{figures['account']} ({figures['mode']})")),
                ("Day of the exchange", text(figures["day"])),
                ("State", text("Final" if figures["final"] else "So far")),
                ("Covers from", Cell(figures["starts_at"], "moment")),
                ("Covers up to", Cell(figures["until"], "moment")),
                ("Made", Cell(figures["made_at"], "moment")),
                ("Equity", Cell(broker["equity"], "dollars")),
                ("Cash", Cell(broker["cash"], "dollars")),
                ("Buying power", Cell(broker["buying_power"], "dollars")),
                ("As the broker told them", Cell(broker["as_of"], "moment")),
            ]
        ),
    )


def _scorecard(cards: Figures) -> Table:
    specs = {spec.key: spec for spec in SPECS}
    windows = [(name, cards[name]) for name in WINDOWS if name in cards]
    measures = {name: {each["key"]: each for each in card["measures"]} for name, card in windows}
    keys = [each["key"] for each in windows[0][1]["measures"] if each["key"] in specs]
    rows = []
    for key in keys:
        spec, of_day = specs[key], measures["day"][key]
        cells = [text(spec.title), text(of_day["target"])]
        for name, _ in windows:
            cells += _measured(measures[name][key], spec.unit)
        is_share = spec.unit == PER_CENT and of_day["denominator"] is not None
        shown = f"{of_day['numerator']} of {of_day['denominator']}" if is_share else ""
        rows.append([*cells, text(shown), text(spec.source), text(spec.note)])
    counted = ", ".join(
        f"{_WINDOW_WORDS[name].lower()}: {card['days']} of {card['of']} reported"
        for name, card in windows[1:]
    )
    titles = [title for name, _ in windows for title in (_WINDOW_WORDS[name], "Met")]
    return Table(
        key="scorecard",
        title="Scorecard",
        header=("Measure", "Target", *titles, "Cases of the day", "Source", "What it is"),
        rows=rows,
        note=f"Trading days, the day itself among them: {counted}. Sources: B broker-state "
        "synchronisation, F foundation of order management, P plan to fix order placement.",
    )


def _measured(measure: Figures, unit: str) -> list[Cell]:
    met = measure["met"]
    words = "" if met is None else "yes" if met else "no"
    return [
        Cell(measure["value"], "number", unit, stands_out=met is False),
        Cell(words, stands_out=met is False),
    ]


def _reconciliation(found: Figures) -> Table:
    return Table(
        key="reconciliation",
        title="Reconciliation",
        header=FACTS,
        rows=pairs(
            [
                ("Comparisons", count(found["runs"])),
                ("Complete", count(found["complete"])),
                ("Incomplete", Cell(found["incomplete"], "count", "", found["incomplete"] > 0)),
                ("Positions compared", count(found["compared"])),
                ("Of them, shares differed", count(found["differed"])),
                ("Mean length", Cell(found["mean_seconds"], "span")),
                ("95 % took at most", Cell(found["p95_seconds"], "span")),
                ("Longest", Cell(found["longest_seconds"], "span")),
                (
                    "Longest gap between complete ones in market hours",
                    Cell(found["longest_gap_seconds"], "span"),
                ),
            ]
        ),
    )


def _orders(found: Figures) -> Table:
    names = ("received", "sent", *OUTCOMES)
    return Table(
        key="orders",
        title="Orders",
        header=("Strategy", "Received", "Sent", *(_OUTCOME_WORDS[each] for each in OUTCOMES)),
        rows=[
            [text(row["strategy"]), *(count(row[name]) for name in names)]
            for row in [*found["by_strategy"], {"strategy": "All", **found["total"]}]
        ],
        note="As they stood when the report was made. An order that replaced another is one of "
        "its own; a pair of which one cancels the other is one.",
    )


def _denials(found: Mapping[str, int]) -> Table:
    return Table(
        key="denials",
        title="Denials",
        header=("Code", "Orders"),
        rows=[[text(code), count(orders)] for code, orders in sorted(found.items())],
        empty="No order was denied.",
        note="An order that two checks denied counts for both." if found else "",
    )


def _money(figures: Figures) -> Table:
    found = figures["fills"]
    return Table(
        key="money",
        title="Fills",
        header=FACTS,
        rows=pairs(
            [
                ("Fills", count(found["count"])),
                ("Bought", Cell(found["bought"], "dollars")),
                ("Sold", Cell(found["sold"], "dollars")),
                ("Turnover", Cell(found["turnover"], "dollars")),
                ("Realised profit", Cell(found["realized_profit"], "signed_dollars")),
            ]
        ),
    )


def _cash(figures: Figures) -> Table:
    booked = [(f"Booked: {label(CashEntry.Kind, row['kind'])}", row) for row in figures["cash"]]
    told = [(f"Told by the broker: {row['activity_type']}", row) for row in figures["activities"]]
    return Table(
        key="cash",
        title="Other cash",
        header=("What", "Count", "Dollars"),
        rows=[
            [text(what), count(row["count"]), Cell(row["amount"], "signed_dollars")]
            for what, row in [*booked, *told]
        ],
        empty="None came or went but by our own fills.",
    )
