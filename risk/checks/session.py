"""The exchange's hours: in which of them orders that add risk are taken, and until when the broker
takes orders for an auction (ALPACA.md section 3: opg not from 9:28 to 19:00, cls not from ten
minutes before the close to 19:00, Eastern Time).
"""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from decimal import Decimal

from risk.checks.values import ZERO, Context, Finding, Intent, reduces
from risk.exchange import Session
from risk.limits import Limits

_AGAIN = time(19, 0)
_BEFORE = {"opg": timedelta(minutes=2), "cls": timedelta(minutes=10)}


def check(intent: Intent, context: Context, limits: Limits) -> Iterator[Finding]:
    session, now = context.session, context.local_time
    if session is None or now is None:
        return
    if not reduces(intent, context):
        yield _finding(
            "session_not_allowed",
            session.kind in limits.allowed_sessions,
            f"The exchange's session is {session.kind}; the limit allowed_sessions takes orders "
            f"only in: {', '.join(sorted(limits.allowed_sessions))}. Send it then.",
        )
    if intent.time_in_force in _BEFORE and context.keeps_auction_hours:
        yield _finding(
            "auction_closed",
            not _is_shut(session, now, intent.time_in_force),
            f"The broker takes {intent.time_in_force} orders until shortly before the auction, and "
            "again from 19:00 Eastern Time. Send it then, or as a day order.",
        )


def _is_shut(session: Session, now: datetime, time_in_force: str) -> bool:
    at = session.opens if time_in_force == "opg" else session.closes
    if at is None:  # no auction on this day: it waits for the next one
        return False
    again = datetime.combine(session.day, _AGAIN, now.tzinfo)
    return at - _BEFORE[time_in_force] <= now < again


def _finding(code: str, ok: bool, message: str) -> Finding:
    return Finding(
        code=code, ok=ok, limit=ZERO, actual=Decimal(not ok), message="" if ok else message
    )
