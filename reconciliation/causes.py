"""What came from outside and may explain a difference: trades and corporate actions that the book
has not taken over yet. Reads the broker's activities as they are kept; never asks the broker.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, Subquery

from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from positions.models import LedgerEntry, Position
from reconciliation.facts import CorporateAction, OutsideTrade
from reconciliation.models import OF_POSITIONS, Break, BrokerActivity, Kind, Suspect

_FILL = "FILL"
# They move no shares, though some tell how many there were.
_DIVIDENDS = ("DIV", "CDIV", "DIVNRA")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreement:
    """When the book was last compared as a whole, and which symbols differed then or since."""

    compared_at: datetime | None
    differing: frozenset[str]
    # Many positions differ at once: then none has agreed.
    mass: bool


def note_agreement(account: BrokerAccount) -> None:
    """Keeps for each position that it agreed when the book was last compared. Called with no
    comparison under way, before the next one."""
    last = _last(account)
    if last.compared_at is None or last.mass:
        return
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        Position.objects.filter(
            Q(agreed_at=None) | Q(agreed_at__lt=last.compared_at), account=account
        ).exclude(symbol__in=sorted(last.differing)).update(agreed_at=last.compared_at)


def _last(account: BrokerAccount) -> _Agreement:
    kinds = sorted({*OF_POSITIONS, Kind.MASS})
    standing = Break.objects.filter(account=account, ended_at=None, kind__in=kinds)
    suspected = Suspect.objects.filter(account=account, kind__in=kinds)
    found = standing.values_list("kind", "symbol").union(suspected.values_list("kind", "symbol"))
    rows = list(found)
    return _Agreement(
        compared_at=BrokerAccount.objects.values_list("books_as_of", flat=True).get(pk=account.pk),
        differing=frozenset(symbol for _, symbol in rows),
        mass=any(kind == Kind.MASS for kind, _ in rows),
    )


def trades(
    account: BrokerAccount, *, unrecorded: Iterable[BrokerActivity] = ()
) -> Mapping[str, Sequence[OutsideTrade]]:
    """Trades outside by symbol, oldest first, since the symbol last agreed or was taken over;
    `unrecorded` ones are newer than all that are kept."""
    found: dict[str, list[OutsideTrade]] = {}
    for row in [*_waiting(account), *unrecorded]:
        if row.qty is None or row.price is None:
            continue
        found.setdefault(row.symbol, []).append(
            OutsideTrade(
                qty=row.qty,
                price=row.price,
                occurred_at=row.occurred_at,
                broker_order_id=row.broker_order_id,
            )
        )
    return found


def _waiting(account: BrokerAccount) -> list[BrokerActivity]:
    last = _last(account)
    # By when we knew of them: the broker's own clock may differ from ours.
    lag = timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    may_explain = Q()
    if last.compared_at is not None and not last.mass:
        may_explain = Q(recorded_at__gt=last.compared_at - lag) | Q(
            symbol__in=sorted(last.differing)
        )
    ours = Order.objects.filter(account=account, broker_order_id=OuterRef("broker_order_id"))
    agreed = Position.objects.filter(account=account, symbol=OuterRef("symbol"))
    rows = (
        BrokerActivity.objects.filter(
            may_explain,
            ~Exists(ours),
            ~_taken_over(account),
            account=account,
            activity_type=_FILL,
        )
        .annotate(agreed_at=Subquery(agreed.values("agreed_at")[:1]))
        .defer("raw")
        .order_by("occurred_at", "pk")
    )
    return [row for row in rows if row.agreed_at is None or row.recorded_at > row.agreed_at - lag]


def _taken_over(account: BrokerAccount) -> Exists:
    """Shares of the activity's symbol were taken over from the broker after it."""
    entries = LedgerEntry.objects.filter(
        account=account,
        position__symbol=OuterRef("symbol"),
        kind__in=(
            LedgerEntry.Kind.CORRECTION,
            LedgerEntry.Kind.CORPORATE_ACTION,
            LedgerEntry.Kind.SPLIT,
        ),
        occurred_at__gte=OuterRef("occurred_at"),
    )
    return Exists(entries.exclude(qty=0))


def actions(account: BrokerAccount, *, since: datetime) -> Mapping[str, Sequence[CorporateAction]]:
    """What happened to symbols' shares without a trade, by symbol, and was not taken over yet."""
    found: dict[str, list[CorporateAction]] = {}
    rows = BrokerActivity.objects.filter(
        ~_taken_over(account), account=account, occurred_at__gte=since, qty__isnull=False
    ).exclude(activity_type__in=(_FILL, *_DIVIDENDS))
    for symbol, kind, qty in rows.values_list("symbol", "activity_type", "qty"):
        found.setdefault(symbol, []).append(CorporateAction(kind=kind, qty=qty))
    return found
