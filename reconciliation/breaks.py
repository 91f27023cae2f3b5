"""Carries out what a look has decided: suspects, breaks with their history and alerts, proposals,
automatic corrections, a halt; all or nothing. Called only by a run, which is alone on its account.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.models import Alert, end_alert, raise_alert
from ordinis.numbers import plain
from reconciliation import applying, history, proposals
from reconciliation.facts import Found
from reconciliation.history import What
from reconciliation.looks import Plan, Step, Verdict
from reconciliation.models import Break, Correction, Kind, Suspect
from reconciliation.snapshots import Taken
from reconciliation.words import explained
from risk import trading
from risk.limit_values import Limits
from risk.limits import in_force
from risk.models import RiskLimits
from risk.states import HALTED

_CORRECTING = frozenset({RiskLimits.ReconcileMode.MANUAL, RiskLimits.ReconcileMode.AUTOMATIC})
_CRITICAL = frozenset(
    {Kind.ORPHAN, Kind.SIDE, Kind.MASS, Kind.TRADE_BUST, Kind.ORDER_FILL, Kind.ORDER_MISSING}
)
# What alerts however little it is worth.
_ALWAYS_TOLD = _CRITICAL | {Kind.ZOMBIE, Kind.ORDER_EXTERNAL, Kind.SPLIT}
# The reader of orders raises this one's alert, in every mode.
_TOLD_ELSEWHERE = frozenset({Kind.ORDER_MISSING})


@dataclass(kw_only=True)
class Done:
    """What was done, for the report."""

    actions: list[dict[str, Any]] = field(default_factory=list)

    def add(self, subject: Found | Break | Suspect, action: str, words: str = "") -> None:
        self.actions.append(
            {
                "subject": subject.subject,
                "symbol": subject.symbol,
                "kind": str(subject.kind),
                "action": action,
                "words": words,
            }
        )


def carry_out(account: BrokerAccount, made: Plan, taken: Taken) -> Done:
    """Writes suspects, breaks, proposals and automatic corrections, all or nothing."""
    done = Done()
    with transaction.atomic():
        BrokerAccount.lock(account.pk)
        # Somebody may have changed the mode, or resolved a break, while the broker was read.
        limits = in_force(account.pk)
        made = _still(made)
        for step in made.steps:
            match step.verdict:
                case Verdict.SUSPECT:
                    suspect(account, step.item, made.now).save()
                    done.add(step.item, "suspect")
                case Verdict.WAIT:
                    _wait(step, made.now)
                    done.add(step.item, "wait")
                case Verdict.OPEN | Verdict.REOPEN:
                    row = _open(account, step, made.now, limits)
                    done.add(row, step.verdict.value, explained(row.explanation))
                    _act(account, row, step, taken, limits, done)
        known = [step for step in made.steps if step.verdict is Verdict.AGAIN]
        fresh = _seen_again(known, made.now, limits)
        for step in known:
            assert step.row is not None
            done.add(step.row, step.verdict.value)
            if step.row.pk in fresh:
                _act(account, step.row, step, taken, limits, done)
        for row in made.heals:
            done.add(row, _end(row, made.now))
        Suspect.objects.filter(pk__in=[row.pk for row in made.forgets]).delete()
    return done


def _end(row: Break, now: datetime) -> str:
    """Closes a break whose difference is gone: by itself, or by the trade that was decided on."""
    traded = row.corrections.filter(
        kind=Correction.Kind.TRADE, status=Correction.Status.APPLIED, order__filled_qty__gt=0
    ).last()
    proposals.supersede(row, "The difference is gone.")
    if traded is None:
        history.end(row, Break.Status.HEALED, at=now)
        return "healed"
    words = f"Order {traded.client_order_id} brought the broker to what our book says."
    history.end(row, Break.Status.RESOLVED, at=now, text=words)
    return "resolved"


def _still(made: Plan) -> Plan:
    """The plan without what has ended since it was made, its standing breaks as they are now."""
    known = [step.row.pk for step in made.steps if step.row and step.verdict is Verdict.AGAIN]
    keys = [*known, *(row.pk for row in made.heals)]
    rows = {row.pk: row for row in Break.objects.filter(pk__in=keys, ended_at=None)}
    steps = [
        replace(step, row=rows.get(step.row.pk))
        if step.row is not None and step.verdict is Verdict.AGAIN
        else step
        for step in made.steps
    ]
    return replace(
        made,
        steps=[step for step in steps if step.row or step.verdict is not Verdict.AGAIN],
        heals=[rows[row.pk] for row in made.heals if row.pk in rows],
    )


def suspect(account: BrokerAccount, item: Found, now: datetime) -> Suspect:
    """A difference seen for the first time, not stored yet."""
    return Suspect(
        account=account,
        **_figures(item),
        first_seen=now,
        last_seen=now,
        quiet_since=now,
        steady_since=now,
    )


def _wait(step: Step, now: datetime) -> None:
    row, item = step.suspect, step.item
    assert row is not None
    if row.difference == item.difference:
        row.steady_looks += 1
    else:
        row.steady_looks, row.steady_since = 1, now
    if step.moved:
        row.quiet_since = now
    for name, value in _figures(item).items():
        setattr(row, name, value)
    row.last_seen = now
    row.save()


def _figures(item: Found) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "subject": item.subject,
        "symbol": item.symbol,
        "local": item.local,
        "broker": item.broker,
    }


def _open(account: BrokerAccount, step: Step, now: datetime, limits: Limits) -> Break:
    item, suspected = step.item, step.suspect
    assert suspected is not None
    # Since when it has been this difference: an earlier one may have been a list's mistake.
    same = suspected.difference == item.difference
    since = suspected.steady_since if same else suspected.first_seen
    row = step.row or Break(account=account, first_seen=since, seen_count=1)
    _describe(row, item, limits)
    row.quiet, row.last_seen = step.quiet, now
    row.seen_count += 1
    again = row.pk is not None
    if again:
        row.status, row.ended_at = Break.Status.OPEN, None
        row.reopened_count += 1
        row.acknowledged_at = row.escalated_at = None
    row.save()
    suspected.delete()
    what = What.REOPENED if again else What.OPENED
    history.note(row, what, at=now, text=sentence(row))
    _tell(row, limits)
    return row


def _describe(row: Break, item: Found, limits: Limits) -> None:
    for name, value in _figures(item).items():
        setattr(row, name, value)
    row.order_id, row.broker_order_id = item.order, item.broker_order_id
    row.local_status, row.broker_status = item.local_status, item.broker_status
    row.value = None if item.value is None else item.value.quantize(Decimal("0.0001"))
    row.explanation = None if item.explanation is None else dict(item.explanation)
    row.severity = severity(item.kind, item.value, limits)


def severity(kind: str, value: Decimal | None, limits: Limits) -> Break.Severity:
    """By kind, and by value: ten times what alerts is to act on."""
    large = value is not None and value > 10 * limits.drift_alert_value
    of_worth = kind not in (Kind.ORDER_EXTERNAL, Kind.ORDER_STATUS, Kind.SPLIT)
    critical = kind in _CRITICAL or (large and of_worth)
    return Break.Severity.CRITICAL if critical else Break.Severity.WARNING


def _seen_again(steps: list[Step], now: datetime, limits: Limits) -> set[int]:
    """Brings standing breaks up to date; returns those whose facts moved, or that no proposal
    waits for yet. As many queries for many as for one, unless they move."""
    moved: set[int] = set()
    rows = []
    rejected = proposals.rejected([step.row for step in steps if step.row])
    for step in steps:
        row, item = step.row, step.item
        assert row is not None
        before, apart = (row.kind, row.local, row.broker), row.difference
        kind, told = row.kind, (_is_told(row, limits), row.severity)
        _describe(row, item, limits)
        row.last_seen = now
        row.seen_count += 1
        rows.append(row)
        if (row.kind, row.local, row.broker) != before:
            moved.add(row.pk)
            # Both sides of a symbol that trades move together, all day: no news of the break.
            if kind != row.kind or apart != row.difference:
                history.note(row, What.CHANGED, at=now, text=sentence(row))
            if kind != row.kind:
                end_alert(row.account_id, code=f"break_{kind}", subject=history.alert_subject(row))
            _tell(row, limits)
        elif row.status != Break.Status.CORRECTING and row.pk not in rejected:
            moved.add(row.pk)
        if row.status == Break.Status.CORRECTING and limits.reconcile_mode not in _CORRECTING:
            # What nobody can approve any more does not wait.
            proposals.supersede(row, f"The mode is {limits.reconcile_mode} now.")
            history.waits_no_more(Break.objects.filter(pk=row.pk))
        if told != (_is_told(row, limits), row.severity):
            _tell(row, limits)  # by its price alone it has come to be worth more
    Break.objects.bulk_update(
        rows,
        (
            *("kind", "local", "broker", "value", "severity", "explanation", "order"),
            *("broker_order_id", "local_status", "broker_status", "last_seen", "seen_count"),
        ),
    )
    return moved


def _act(
    account: BrokerAccount, row: Break, step: Step, taken: Taken, limits: Limits, done: Done
) -> None:
    """What follows from a break: a halt, an automatic correction, or a proposal."""
    if row.kind == Kind.MASS:
        if step.verdict is not Verdict.AGAIN:
            trading.set_state(
                account.pk, HALTED, reason=f"{sentence(row)} Look before resuming.", actor="Ordinis"
            )
            done.add(row, "halted")
        return
    mode = limits.reconcile_mode
    if mode not in _CORRECTING:
        return
    made = proposals.propose(row, taken.figures, item=step.item, snapshot=taken.row, limits=limits)
    if made is None:
        return
    # What stood already was not asked for by itself at this look, and may have moved just now.
    looked_up = step.verdict is not Verdict.AGAIN
    automatic = looked_up and mode == RiskLimits.ReconcileMode.AUTOMATIC
    if automatic and applying.apply_by_itself(made, row, step.item, limits):
        done.add(row, "corrected", made.comment)
    else:
        done.add(row, "proposed")


def _is_told(row: Break, limits: Limits) -> bool:
    small = row.value is not None and row.value <= limits.drift_alert_value
    return row.kind not in _TOLD_ELSEWHERE and (not small or row.kind in _ALWAYS_TOLD)


def _tell(row: Break, limits: Limits) -> None:
    if not _is_told(row, limits):
        return
    critical = row.severity == Break.Severity.CRITICAL
    raise_alert(
        row.account_id,
        code=f"break_{row.kind}",
        subject=history.alert_subject(row),
        severity=Alert.Severity.CRITICAL if critical else Alert.Severity.WARNING,
        message=" ".join(filter(None, (sentence(row), explained(row.explanation)))),
    )


def sentence(row: Break) -> str:
    """What differs, in a sentence."""
    local, broker = plain(row.local), plain(row.broker)
    match row.kind:
        case Kind.AVERAGE_PRICE:
            return f"{row.symbol}: our average price is ${local}, the broker's ${broker}."
        case Kind.CASH:
            return f"Cash: our book says ${row.local:,.2f}, the broker ${row.broker:,.2f}."
        case Kind.BUYING_POWER:
            return (
                f"Buying power: ${row.local:,.2f} follows from what happened, the broker says "
                f"${row.broker:,.2f}."
            )
        case Kind.MASS:
            return f"{plain(row.local - row.broker)} of {local} positions and orders differ."
        case Kind.ORDER_MISSING:
            return f"{row.symbol}: an order is open here that the broker does not know."
        case Kind.ORDER_EXTERNAL:
            return f"{row.symbol}: an order for {broker} is open that was not placed here."
        case Kind.ORDER_STATUS:
            return (
                f"{row.symbol}: an order is {row.local_status} here and {row.broker_status} at "
                "the broker."
            )
        case Kind.ORDER_FILL:
            return f"{row.symbol}: {local} of an order filled by our book, {broker} by the broker."
        case _:
            return f"{row.symbol}: our book says {local}, the broker {broker}."
