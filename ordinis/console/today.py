"""What the Today page shows: what needs a person first, then the figures, each with its age.

Only reads what is stored; never asks the broker.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.contrib.auth.models import User
from django.db.models import Count, F, Prefetch, Q
from django.urls import reverse

from orders import statuses
from orders.judgement import reserved
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert
from ordinis.console import breaks_text, text
from ordinis.console.days import start_of_today
from ordinis.console.header import Header
from positions.sectors import unknown_symbols
from reconciliation.corrections import may_decide
from reconciliation.models import Break, Correction, ReconciliationReport
from reconciliation.words import explained
from risk.limits import may_decide as may_decide_limits
from risk.models import RiskLimits

# More than this on one page is not read: the rest is counted and linked.
SHOWN = 20
LAST_ORDERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that needs a person, and where it is dealt with."""

    key: str
    tone: str
    word: str
    what: str
    detail: str
    since: datetime | None
    url: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """One account's figures; dollars."""

    account: BrokerAccount
    reserved: Decimal | None
    available: Decimal | None
    orders: dict[str, int]
    report: ReconciliationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """The whole page."""

    items: list[Item]
    more_breaks: int
    books: list[Book]
    last_orders: list[Order]


def today(user: User, header: Header) -> Today:
    """Everything the page shows to this person, as of now."""
    breaks, more_breaks = _breaks(user)
    items = [
        *breaks,
        *_late(header),
        *_unwatched(header),
        *_unresolved(),
        *_limits(user),
        *_alerts(),
        *_without_sector(),
    ]
    # What is red comes first; otherwise the order above stands.
    items.sort(key=lambda item: item.tone != "red")
    return Today(
        items=items,
        more_breaks=more_breaks,
        books=[_book(sync.account) for sync in header.syncs],
        last_orders=list(
            Order.objects.select_related("strategy").filter(
                account_id__in=[sync.account.pk for sync in header.syncs]
            )[:LAST_ORDERS]
        ),
    )


def _breaks(user: User) -> tuple[list[Item], int]:
    """The first of the queue, and how many more there are."""
    waiting = Correction.objects.filter(status=Correction.Status.PROPOSED)
    standing = Break.objects.filter(ended_at=None)
    rows = list(
        standing.select_related("order", "assignee")
        .prefetch_related(Prefetch("corrections", waiting, to_attr="waiting"))
        .order_by("severity", F("value").desc(nulls_last=True), "pk")[:SHOWN]  # critical first
    )
    more = max(standing.count() - SHOWN, 0)
    decides = _decidable([proposal for row in rows for proposal in _waiting(row)], user)
    return [_break_item(row, decides) for row in rows], more


def _waiting(row: Break) -> list[Correction]:
    """The proposal of a break, at most one, as it was read with it."""
    return list(row.waiting)  # type: ignore[attr-defined]


def _decidable(waiting: list[Correction], user: User) -> set[int]:
    """Those that this person may decide. Of his own proposals he may decide all or none, and that
    takes a look at everybody: one look for all."""
    own = [row for row in waiting if row.proposed_by_id == user.pk]
    others = [row for row in waiting if row.proposed_by_id != user.pk]
    found = {row.pk for row in others if may_decide(row, user)}
    return found | {row.pk for row in own} if own and may_decide(own[0], user) else found


def _break_item(row: Break, decides: set[int]) -> Item:
    waiting = _waiting(row)
    url, action = reverse("admin:reconciliation_break_change", args=(row.pk,)), "See the break"
    if waiting and waiting[0].pk in decides:
        url = reverse("admin:reconciliation_correction_decide", args=(waiting[0].pk,))
        action = "Decide the correction"
    elif waiting:
        url = reverse("admin:reconciliation_correction_change", args=(waiting[0].pk,))
        action = "See the correction"
    busy = {
        Break.Status.ACKNOWLEDGED: "Acknowledged. ",
        Break.Status.ESCALATED: "Escalated. ",
    }.get(Break.Status(row.status), "")
    holder = f" {row.assignee} has it." if row.assignee else ""
    why = explained(row.explanation)
    return Item(
        key=f"break-{row.pk}",
        tone="red" if row.severity == Break.Severity.CRITICAL else "amber",
        word=row.get_severity_display(),
        what=breaks_text.short(row),
        detail=f"{busy}{breaks_text.sentence(row)}{f' {why}' if why else ''}{holder}",
        since=row.first_seen,
        url=url,
        action=action,
    )


def _late(header: Header) -> list[Item]:
    return [
        Item(
            key=f"sync-{sync.account.pk}",
            tone=sync.tone,
            word="To act on" if sync.tone == "red" else "To look at",
            what=f"{sync.account}: {sync.words.rstrip(':')}",
            detail="Book and broker are compared by clock and worker: check that both run.",
            since=sync.at,
            url=reverse("admin:reconciliation_reconciliationreport_changelist"),
            action="See the reports",
        )
        for sync in header.syncs
        if sync.tone and sync.watched
    ]


def _unwatched(header: Header) -> list[Item]:
    return [
        Item(
            key=f"unwatched-{sync.account.pk}",
            tone="amber",
            word="To look at",
            what=f"{sync.account} is not compared with its broker",
            detail="Reconcile mode is off: no difference is seen, and no break is opened.",
            since=None,
            url=reverse("admin:risk_risklimits_changelist"),
            action="See the limits",
        )
        for sync in header.syncs
        if not sync.watched
    ]


def _unresolved() -> list[Item]:
    rows = Order.objects.filter(status=statuses.UNRESOLVED)[:SHOWN]
    return [
        Item(
            key=f"order-{row.pk}",
            tone="amber",
            word="To look at",
            what=f"{row.side.capitalize()} {text.shares(row.qty)} {row.symbol}: outcome unknown",
            detail="The broker's answer was lost. Ordinis is finding out and sends nothing twice.",
            since=row.submitted_at,
            url=reverse("admin:orders_order_change", args=(row.pk,)),
            action="See the order",
        )
        for row in rows
    ]


def _limits(user: User) -> list[Item]:
    rows = RiskLimits.objects.select_related("account", "strategy").filter(
        status=RiskLimits.Status.PROPOSED
    )
    return [
        Item(
            key=f"limits-{row.pk}",
            tone="amber",
            word="To look at",
            what=f"{row.strategy or row.account}: limits wait for a second person",
            detail=f"{row.actor} would change {', '.join(row.changed)}: {row.reason}",
            since=row.created_at,
            url=reverse(
                "admin:risk_risklimits_decide"
                if may_decide_limits(row, user)
                else "admin:risk_risklimits_change",
                args=(row.pk,),
            ),
            action="Decide" if may_decide_limits(row, user) else "See the version",
        )
        for row in rows[:SHOWN]
    ]


def _without_sector() -> list[Item]:
    still = Order.objects.exclude(status__in=sorted(statuses.CLOSED)).order_by()
    symbols = unknown_symbols(also=still.values_list("symbol", flat=True).distinct())
    if not symbols:
        return []
    return [
        Item(
            key="without-sector",
            tone="amber",
            word="To look at",
            what=f"{len(symbols)} symbol{'s' if len(symbols) > 1 else ''} without a sector",
            detail=f"{', '.join(symbols[:SHOWN])}: held or on order, counted as Unknown.",
            since=None,
            url=reverse("admin:positions_instrument_changelist"),
            action="Give it one" if len(symbols) == 1 else "Give them one",
        )
    ]


def _alerts() -> list[Item]:
    # A break's alert would say the same again.
    rows = Alert.objects.filter(ended_at=None).exclude(code__startswith="break_")[:SHOWN]
    return [
        Item(
            key=f"alert-{row.pk}",
            tone="red" if row.severity == Alert.Severity.CRITICAL else "amber",
            word=row.get_severity_display(),
            what=row.words,
            detail=row.message,
            since=row.first_seen,
            url=reverse("admin:alerts_alert_change", args=(row.pk,)),
            action="See the alert",
        )
        for row in rows
    ]


def _book(account: BrokerAccount) -> Book:
    held_back = None if account.as_of is None else reserved(account.pk, account.as_of)
    available = (
        None
        if held_back is None or account.buying_power is None
        else account.buying_power - held_back
    )
    placed = Order.objects.filter(account=account, created_at__gte=start_of_today()).order_by()
    counts = placed.aggregate(
        placed=Count("pk"),
        filled=Count("pk", filter=Q(status="filled")),
        denied=Count("pk", filter=Q(status=statuses.DENIED)),
        rejected=Count("pk", filter=Q(status__in=(statuses.REJECTED, statuses.FAILED))),
    )
    still = Order.objects.filter(account=account).exclude(status__in=sorted(statuses.CLOSED))
    counts |= still.aggregate(
        open=Count("pk"), unresolved=Count("pk", filter=Q(status=statuses.UNRESOLVED))
    )
    return Book(
        account=account,
        reserved=held_back,
        available=available,
        orders=counts,
        report=ReconciliationReport.objects.filter(account=account, dry_run=False).first(),
    )
