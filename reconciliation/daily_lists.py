"""What a daily report lists one by one, as tables: breaks, corrections, changes of trading, alerts,
rebuilds.
"""

from collections.abc import Sequence

from ordinis.alerts import kinds
from ordinis.alerts.models import Alert
from reconciliation.daily_cells import Cell, Figures, Table, count, label, text
from reconciliation.models import Break, Correction, Kind
from reconciliation.words import explained
from risk.models import TradingChange


def breaks_by_kind(found: Figures) -> Table:
    names = ("opened", "healed", "resolved", "standing")
    return Table(
        key="breaks_by_kind",
        title="Breaks by kind",
        header=("Kind", "Opened", "Healed", "Resolved", "Open at the end", "Oldest", "Value open"),
        rows=[
            [
                text(_kind(row["kind"])),
                *(count(row[name]) for name in names),
                Cell(row["oldest_seconds"], "span"),
                Cell(row["value"], "dollars"),
            ]
            for row in found["by_kind"]
        ],
        empty="None opened, ended or stands.",
    )


def breaks(found: Figures) -> Table:
    return Table(
        key="breaks",
        title="Breaks",
        header=(
            *("Kind", "About", "Severity", "State", "First seen", "Age"),
            *("Value", "Times seen", "Assignee", "Explanation"),
        ),
        rows=[
            [
                text(_kind(row["kind"])),
                text(row["symbol"] or row["subject"]),
                Cell(label(Break.Severity, row["severity"])),
                text(label(Break.Status, row["status"])),
                Cell(row["first_seen"], "moment"),
                Cell(row["age_seconds"], "span"),
                Cell(row["value"], "dollars"),
                count(row["seen_count"]),
                text(row["assignee"]),
                text(explained(row["explanation"])),
            ]
            for row in found["listed"]
        ],
        note=_left_out(found),
    )


def corrections(found: Figures) -> Table:
    return Table(
        key="corrections",
        title="Corrections",
        header=(
            *("Kind", "Symbol", "Our figure", "Broker's", "Value", "State", "Proposed by"),
            *("Why", "Decided by", "Decided", "Comment"),
        ),
        rows=[
            [
                text(label(Correction.Kind, row["kind"])),
                text(row["symbol"]),
                Cell(row["local"], "number"),
                Cell(row["broker"], "number"),
                Cell(row["value"], "dollars"),
                text(label(Correction.Status, row["status"])),
                text(row["proposed_by"]),
                text(" ".join(filter(None, (row["reason"], explained(row["explanation"]))))),
                text(_decider(row)),
                Cell(row["decided_at"], "moment"),
                text(row["comment"]),
            ]
            for row in found["listed"]
        ],
        empty="None was proposed or decided, and none waits.",
        note=f"{found['by_people']} decided by people, {found['automatic']} applied by itself "
        f"within the limits. {_left_out(found)}".strip(),
    )


def _decider(row: Figures) -> str:
    if row["automatic"]:
        return "Ordinis, within the limits"
    alone = " (proposed it, the only person of the account)" if row["self_decided"] else ""
    return f"{row['decided_by']}{alone}"


def trading(found: Figures) -> Table:
    return Table(
        key="trading",
        title="Trading state and breaker",
        header=("When", "What", "From", "To", "By", "Why"),
        rows=[
            [
                Cell(row["at"], "moment"),
                text(label(TradingChange.Kind, row["kind"])),
                *(text(row[name]) for name in ("from", "to", "actor", "reason")),
            ]
            for row in found["listed"]
        ],
        empty="Nothing changed.",
        note=_left_out(found),
    )


def alerts(found: Figures) -> Table:
    return Table(
        key="alerts",
        title="Alerts",
        header=(
            "Problem",
            "About",
            "Severity",
            "First seen",
            "Over since",
            "Times seen",
            "Message",
        ),
        rows=[
            [
                text(kinds.words(row["code"])),
                text(row["subject"]),
                text(label(Alert.Severity, row["severity"])),
                Cell(row["first_seen"], "moment"),
                Cell(row["ended_at"], "moment"),
                count(row["seen_count"]),
                text(row["message"]),
            ]
            for row in found["listed"]
        ],
        empty="None was raised, and none stands.",
        note=_left_out(found),
    )


def rebuilds(found: Sequence[Figures]) -> Table:
    return Table(
        key="rebuilds",
        title="Rebuilds of the book",
        header=("When", "By", "Why", "Positions changed", "Cash before", "Cash after"),
        rows=[
            [
                Cell(row["at"], "moment"),
                text(row["actor"]),
                text(row["reason"]),
                count(row["changes"]),
                Cell(row["cash_before"], "dollars"),
                Cell(row["cash_after"], "dollars"),
            ]
            for row in found
        ],
    )


def _left_out(found: Figures) -> str:
    left_out = found["left_out"]
    return f"{left_out} more are not listed; the counts have them all." if left_out else ""


def _kind(value: str) -> str:
    return label(Kind, value).partition(":")[0]
