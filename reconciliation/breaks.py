"""Turns differences into suspects, suspects into breaks, and closes breaks that healed.

A difference must be seen twice, ten seconds apart, with nothing of its symbol moving in between:
a fill on its way looks just like a drift. Called only by a run, which is alone on its account.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce

from orders import statuses
from orders.models import Order
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, raise_alert
from ordinis.numbers import plain
from positions.models import Position
from reconciliation import corrections
from reconciliation.compare import Found
from reconciliation.models import Break, Kind, Suspect
from risk.figures import Figures
from risk.models import RiskLimits

# Without a quiet moment for this long it is a break all the same.
_RESTLESS = timedelta(minutes=5)
# Orders carry the time of the process that moved them, looks that of the database.
_CLOCKS_DIFFER = timedelta(seconds=1)


def take_in(account: BrokerAccount, found: list[Found], snapshot: Figures, *, mode: str) -> None:
    """Brings suspects and breaks in line with what a complete comparison found."""
    now = snapshot.asked_at
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        standing = {
            (row.kind, row.symbol): row
            for row in Break.objects.filter(
                account=account, order=None, status__in=Break.OPEN_STATUSES
            )
        }
        suspects = {row.symbol: row for row in Suspect.objects.filter(account=account)}
        prices = _prices(account, found, snapshot)
        again: list[Break] = []
        for item in found:
            known = standing.pop((item.kind, item.symbol), None)
            decided_on = known is not None and _waits_on(known, item)
            if known is None:
                suspect = suspects.pop(item.symbol, None)
                known = _second_look(account, item, suspect, snapshot, prices)
            else:
                again.append(_seen_again(known, item, now, prices))
            if known and not decided_on and mode == RiskLimits.ReconcileMode.MANUAL:
                corrections.propose(known, snapshot)
        Break.objects.bulk_update(
            again, ("local_qty", "broker_qty", "value", "last_seen", "seen_count")
        )
        for row in standing.values():
            _heal(row, now)
        Suspect.objects.filter(pk__in=[row.pk for row in suspects.values()]).delete()


def _waits_on(row: Break, item: Found) -> bool:
    """Whether a proposal for these very facts waits already."""
    return row.status == Break.Status.CORRECTING and (row.local_qty, row.broker_qty) == (
        item.local_qty,
        item.broker_qty,
    )


def _second_look(
    account: BrokerAccount,
    item: Found,
    suspect: Suspect | None,
    snapshot: Figures,
    prices: Mapping[str, Decimal],
) -> Break | None:
    now = snapshot.asked_at
    if suspect is None:
        Suspect.objects.create(
            account=account,
            kind=item.kind,
            symbol=item.symbol,
            local_qty=item.local_qty,
            broker_qty=item.broker_qty,
            first_seen=now,
            last_seen=now,
            quiet_since=now,
        )
        return None
    same = (suspect.kind, suspect.local_qty, suspect.broker_qty) == (
        item.kind,
        item.local_qty,
        item.broker_qty,
    )
    quiet = same and not _moved(account, item.symbol, suspect.quiet_since)
    restless = now - suspect.first_seen >= _RESTLESS
    waited = now - suspect.quiet_since >= timedelta(seconds=settings.SECOND_LOOK_SECONDS)
    if not restless and not (quiet and waited):
        suspect.kind, suspect.last_seen = item.kind, now
        suspect.local_qty, suspect.broker_qty = item.local_qty, item.broker_qty
        if not quiet:
            suspect.quiet_since = now
        suspect.save()
        return None
    suspect.delete()
    return _open(account, item, suspect.first_seen, snapshot.asked_at, prices)


def _moved(account: BrokerAccount, symbol: str, since: datetime) -> bool:
    """Whether an order of the symbol moved, or is in a state that may hide a move."""
    recently = Q(updated_at__gte=since - _CLOCKS_DIFFER)
    unproved = Q(status__in=sorted(statuses.UNPROVED))
    return Order.objects.filter(recently | unproved, account=account, symbol=symbol).exists()


def _prices(account: BrokerAccount, found: list[Found], snapshot: Figures) -> Mapping[str, Decimal]:
    """The broker's price of each symbol that differs: its present one, else its last."""
    rows = Position.objects.filter(account=account, symbol__in=[item.symbol for item in found])
    last = rows.values_list("symbol", Coalesce("broker_price", "average_price"))
    prices = {symbol: price for symbol, price in last if price is not None}
    for symbol, held in snapshot.positions.items():
        if held.current_price is not None:
            prices[symbol] = held.current_price
    return prices


def _value(item: Found, prices: Mapping[str, Decimal]) -> Decimal | None:
    price = prices.get(item.symbol)
    return None if price is None else abs(item.difference * price)


def _open(
    account: BrokerAccount,
    item: Found,
    first_seen: datetime,
    now: datetime,
    prices: Mapping[str, Decimal],
) -> Break:
    orphan = item.kind == Kind.ORPHAN
    row = Break.objects.create(
        account=account,
        kind=item.kind,
        symbol=item.symbol,
        local_qty=item.local_qty,
        broker_qty=item.broker_qty,
        value=_value(item, prices),
        severity=Break.Severity.CRITICAL if orphan else Break.Severity.WARNING,
        first_seen=first_seen,
        last_seen=now,
        seen_count=2,
    )
    raise_alert(
        account.pk,
        code=f"break_{item.kind}",
        subject=item.symbol,
        severity=Alert.Severity.CRITICAL if orphan else Alert.Severity.WARNING,
        message=(
            f"{item.symbol}: our book says {plain(item.local_qty)}, the broker "
            f"{plain(item.broker_qty)}."
        ),
    )
    return row


def _seen_again(row: Break, item: Found, now: datetime, prices: Mapping[str, Decimal]) -> Break:
    row.local_qty, row.broker_qty = item.local_qty, item.broker_qty
    row.value = _value(item, prices)
    row.last_seen = now
    row.seen_count += 1
    return row


def _heal(row: Break, now: datetime) -> None:
    corrections.supersede(row, "The difference is gone.")
    row.end(Break.Status.HEALED, now)
