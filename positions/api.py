"""Account and positions over HTTP: parses, calls one function, answers. Holds no rule."""

from typing import Annotated, Any, Literal

from django.db.models import Q
from ninja import Path, Router, Schema

from ordinis.accounts.auth import Scope, TokenRequest, strategy_of
from ordinis.http import Problem, ProblemOut, moment
from ordinis.numbers import dollars, plain
from positions.models import Position
from positions.sectors import sector_of

router = Router(tags=["positions"])


class PositionOut(Schema):
    """Ours beside the broker's. Shares are signed; prices and values are dollars."""

    symbol: str
    qty: str
    average_price: str | None
    broker_qty: str
    broker_qty_available: str
    broker_average_price: str | None
    market_value: str | None
    sector: str
    drift_qty: str
    drift_value: str | None
    realized_profit: str
    status: str
    closed_reason: str | None
    as_of: str | None


class PositionList(Schema):
    items: list[PositionOut]


@router.get("/positions", auth=Scope("read"), response=PositionList, summary="Positions")
def list_positions(
    request: TokenRequest, status: Literal["held", "closed", "all"] = "held"
) -> dict[str, Any]:
    rows = Position.objects.filter(account_id=strategy_of(request).account_id)
    held = ~Q(qty=0) | ~Q(broker_qty=0)
    if status != "all":
        rows = rows.filter(held if status == "held" else ~held)
    found = sector_of(row.symbol for row in rows)
    return {"items": [_out(row, found[row.symbol]) for row in rows]}


@router.get(
    "/positions/{symbol}",
    auth=Scope("read"),
    response={200: PositionOut, 404: ProblemOut},
    summary="One position; a closed one says why it closed",
)
def get_position(
    request: TokenRequest, symbol: Annotated[str, Path(pattern=r"^[A-Za-z0-9.]{1,16}$")]
) -> dict[str, Any]:
    symbol = symbol.upper()
    row = Position.objects.filter(account_id=strategy_of(request).account_id, symbol=symbol).first()
    if row is None or (not row.ledger_version and not row.broker_qty):
        raise Problem(404, "position_not_found", f"Neither side holds {symbol}.")
    return _out(row, sector_of([symbol])[symbol])


def _out(row: Position, sector: str) -> dict[str, Any]:
    return {
        "symbol": row.symbol,
        "qty": plain(row.qty),
        "average_price": dollars(row.average_price),
        "broker_qty": plain(row.broker_qty),
        "broker_qty_available": plain(row.broker_qty_available),
        "broker_average_price": dollars(row.broker_average_price),
        "market_value": dollars(row.broker_market_value),
        "sector": sector,
        "drift_qty": plain(row.drift_qty),
        "drift_value": dollars(row.drift_value),
        "realized_profit": plain(row.realized_profit),
        "status": row.status,
        "closed_reason": row.closed_reason or None,
        "as_of": moment(row.broker_as_of),
    }
