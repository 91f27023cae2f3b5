"""What a report found, and what was done about each difference, in words. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ordinis.console import breaks_text
from reconciliation.models import ReconciliationReport

# What was done, and what a dry run says would be.
_ACTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "suspect": ("Seen once: it is looked at again", "Would be looked at again"),
    "wait": ("Waits for a look while nothing of it moves", "Would wait for another look"),
    "opened": ("A break was opened", "Would open a break"),
    "reopened": ("Its break was opened again", "Would open its break again"),
    "seen_again": ("Its break was counted once more", "Would count its break once more"),
    "proposed": ("A correction was proposed", "Would propose a correction"),
    "corrected": ("Corrected by itself, within the limits", "Would be corrected by itself"),
    "halted": ("Trading was halted", "Would halt trading"),
    "resolved": ("Its break was closed: a trade brought it back", "Would close its break"),
    "not_compared": ("Not compared", "Not compared"),
    "healed": ("Healed: both sides agree again", "Would heal: both sides agree again"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One difference, or one thing done about what differs no more; figures as stored."""

    subject: str
    kind: str
    kind_words: str
    local: str
    broker: str
    value: str | None
    explanation: str
    done: list[str]


def lines(report: ReconciliationReport) -> list[Line]:
    """Every difference with what was done about it; then what was done about others."""
    done: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for action in report.actions:
        done[action["subject"]].append(action)
    found = [
        Line(
            subject=_subject(each),
            kind=each["kind"],
            kind_words=breaks_text.KIND_WORDS.get(each["kind"], each["kind"]),
            local=each.get("local") or "",
            broker=each.get("broker") or "",
            value=each.get("value"),
            explanation=each.get("explanation") or "",
            done=[_words(action, report) for action in done.pop(each["subject"], ())],
        )
        for each in report.differences
    ]
    for actions in done.values():
        first = actions[0]
        kind = breaks_text.KIND_WORDS.get(first["kind"], first["kind"])
        told = [_words(action, report) for action in actions]
        found.append(Line(_subject(first), first["kind"], kind, "", "", None, "", told))
    return found


def _subject(each: Mapping[str, Any]) -> str:
    if each.get("symbol"):
        return str(each["symbol"])
    return str(each["subject"]).rpartition("/")[2].replace("_", " ").capitalize()


def _words(action: Mapping[str, Any], report: ReconciliationReport) -> str:
    name = str(action["action"])
    did, would = _ACTIONS.get(name, (name, f"Would: {name}"))
    return would if report.dry_run else did
