"""Alpaca through alpaca-py, made safe: raw bodies, our own timeouts, no hidden retries.

Why so much is switched off (ALPACA.md 5): the library re-POSTs orders on 429 and 504, has no
timeout, loses a whole list for one unknown status, turns decimals into floats and follows the
environment's proxies even to loopback. Never re-sends an order by itself.
"""

import json
import re
import threading
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import requests
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter

from ordinis.broker.errors import (
    BrokerRefused,
    BrokerUnavailable,
    DuplicateClientOrderId,
    OrderRefused,
    OutcomeUnknown,
)
from ordinis.broker.port import (
    AccountReport,
    ExecutionReport,
    OrderReport,
    OrderRequest,
    Orders,
    PositionReport,
    Positions,
    Raw,
)
from ordinis.numbers import plain

_PAGE = 500  # the most that Alpaca lists at once
_MAX_PAGES = 40


class _TimeoutAdapter(HTTPAdapter):
    """alpaca-py never sets a timeout; a stalled broker would hold the thread for ever."""

    def __init__(self, seconds: float) -> None:
        super().__init__(pool_connections=1, pool_maxsize=4)
        self._seconds = seconds

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs["timeout"] = (min(self._seconds, 5), self._seconds)
        return super().send(request, **kwargs)


class AlpacaBroker:
    """`ordinis.broker.port.Broker` over Alpaca's Trading API. Safe to share between threads:
    each thread gets a client of its own."""

    def __init__(self, *, url: str, key_id: str, secret_key: str, timeout: float) -> None:
        self._url = url
        self._key_id = key_id
        self._secret_key = secret_key
        self._timeout = timeout
        self._local = threading.local()

    # --- reads --------------------------------------------------------------------------

    def account(self) -> AccountReport:
        raw = self._read_object("/account")
        try:
            return AccountReport(
                account_number=str(raw.get("account_number", "")),
                status=str(raw.get("status", "")),
                equity=_required(raw, "equity"),
                cash=_required(raw, "cash"),
                buying_power=_required(raw, "buying_power"),
                trading_blocked=bool(raw.get("trading_blocked") or raw.get("account_blocked")),
                raw=raw,
            )
        except ValueError as error:
            raise BrokerUnavailable(f"The broker's account answer is unusable: {error}") from error

    def positions(self) -> Positions:
        answer = self._read("/positions")
        if not isinstance(answer, list):
            raise BrokerUnavailable("The broker's list of positions is not a list.")
        items, faults = [], []
        for raw in answer:
            try:
                items.append(parse_position(raw))
            except ValueError as error:
                faults.append(str(error))
        return Positions(items=tuple(items), complete=not faults, reason="; ".join(faults))

    def position(self, symbol: str) -> PositionReport | None:
        raw = self._find(f"/positions/{symbol}")
        if raw is None:
            return None
        try:
            return parse_position(raw)
        except ValueError as error:
            raise BrokerUnavailable(f"The broker's position is unusable: {error}") from error

    def open_orders(self) -> Orders:
        items: dict[str, OrderReport] = {}
        faults: list[str] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            query: dict[str, Any] = {"status": "open", "limit": _PAGE, "direction": "desc"}
            if cursor:
                query["before_order_id"] = cursor
            try:
                page = self._read("/orders", query)
            except BrokerUnavailable as error:
                if cursor is None:
                    raise
                return Orders(items=tuple(items.values()), complete=False, reason=str(error))
            if not isinstance(page, list):
                raise BrokerUnavailable("The broker's list of orders is not a list.")
            known = len(items)
            for raw in page:
                try:
                    report = parse_order(raw)
                except ValueError as error:
                    faults.append(str(error))
                else:
                    items[report.broker_order_id] = report
            if len(page) < _PAGE:
                return Orders(
                    items=tuple(items.values()), complete=not faults, reason="; ".join(faults)
                )
            if len(items) == known:
                faults.append("a page of orders repeated itself")
                break
            cursor = str(page[-1].get("id"))
        return Orders(
            items=tuple(items.values()),
            complete=False,
            reason="; ".join(faults) or "there were more pages of orders than are read",
        )

    def order(self, broker_order_id: str) -> OrderReport | None:
        return self._order_or_none(f"/orders/{broker_order_id}", None)

    def order_by_client_id(self, client_order_id: str) -> OrderReport | None:
        return self._order_or_none(
            "/orders:by_client_order_id", {"client_order_id": client_order_id}
        )

    # --- the one write ------------------------------------------------------------------

    def submit(self, request: OrderRequest) -> OrderReport:
        body: dict[str, Any] = {
            "symbol": request.symbol,
            "qty": plain(request.qty),
            "side": request.side,
            "type": request.type,
            "time_in_force": request.time_in_force,
            "extended_hours": request.extended_hours,
            "client_order_id": request.client_order_id,
        }
        if request.limit_price is not None:
            body["limit_price"] = plain(request.limit_price)
        try:
            raw = self._client().post("/orders", body)
        except APIError as error:
            raise _submit_failure(error) from error
        except Exception as error:  # reset, timeout, an unparsable 200: the order may exist
            raise OutcomeUnknown(_describe(error)) from error
        try:
            report = parse_order(raw)
        except ValueError as error:
            raise OutcomeUnknown(f"The broker's answer is unusable: {error}") from error
        if report.client_order_id != request.client_order_id:
            raise OutcomeUnknown("The broker answered with another order.")
        return report

    # --- plumbing -----------------------------------------------------------------------

    def _client(self) -> TradingClient:
        client = getattr(self._local, "client", None)
        if client is None:
            client = TradingClient(
                self._key_id, self._secret_key, raw_data=True, url_override=self._url
            )
            client._retry = 0
            client._session.trust_env = False
            adapter = _TimeoutAdapter(self._timeout)
            client._session.mount("http://", adapter)
            client._session.mount("https://", adapter)
            self._local.client = client
        return client

    def _read(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return self._call(lambda: self._client().get(path, query))

    def _call(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except APIError as error:
            status, code, message, fields = _problem(error)
            if status in (401, 403):
                raise BrokerRefused(
                    f"The broker refuses our keys or permission ({message}). Check "
                    "APCA_API_KEY_ID, APCA_API_SECRET_KEY and APCA_API_BASE_URL.",
                    status=status,
                    code=code,
                    fields=fields,
                ) from error
            raise BrokerUnavailable(message, status=status, code=code, fields=fields) from error
        except Exception as error:  # whatever the library throws: the read failed, no more
            raise BrokerUnavailable(_describe(error)) from error

    def _read_object(self, path: str) -> Raw:
        raw = self._read(path)
        if not isinstance(raw, dict):
            raise BrokerUnavailable(f"The broker's answer to {path} is not an object.")
        return raw

    def _find(self, path: str, query: dict[str, Any] | None = None) -> Raw | None:
        """A 404 with the broker's own message is 'there is none'; a gateway's proves nothing."""
        try:
            raw = self._read(path, query)
        except BrokerUnavailable as error:
            if error.status == 404 and re.search("not found|does not exist", error.message):
                return None
            raise
        if not isinstance(raw, dict):
            raise BrokerUnavailable(f"The broker's answer to {path} is not an object.")
        return raw

    def _order_or_none(self, path: str, query: dict[str, Any] | None) -> OrderReport | None:
        raw = self._find(path, query)
        if raw is None:
            return None
        try:
            return parse_order(raw)
        except ValueError as error:
            raise BrokerUnavailable(f"The broker's order is unusable: {error}") from error


# --- parsing: every ValueError names the field ---------------------------------------------


def parse_order(raw: Any) -> OrderReport:
    """An order of Alpaca's REST or stream body. Raises ValueError when it can't be one."""
    if not isinstance(raw, dict):
        raise ValueError("an order is not an object")
    return OrderReport(
        broker_order_id=_text(raw, "id"),
        client_order_id=_text(raw, "client_order_id"),
        symbol=_text(raw, "symbol"),
        side=_text(raw, "side"),
        qty=_optional(raw, "qty"),
        type=str(raw.get("type") or raw.get("order_type") or ""),
        time_in_force=str(raw.get("time_in_force") or ""),
        limit_price=_optional(raw, "limit_price"),
        stop_price=_optional(raw, "stop_price"),
        status=_text(raw, "status"),
        filled_qty=_optional(raw, "filled_qty") or Decimal(0),
        average_fill_price=_optional(raw, "filled_avg_price"),
        updated_at=_time(raw.get("updated_at")),
        raw=raw,
    )


def parse_trade_update(message: Any) -> OrderReport:
    """A `trade_updates` frame: the order, and the execution where the event is one.

    Raises ValueError when it can't be one. `price` and `qty` are the execution's own.
    """
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, dict):
        raise ValueError("a trade update has no data")
    report = parse_order(data.get("order"))
    if data.get("event") not in ("fill", "partial_fill"):
        return report
    execution_id = data.get("execution_id")
    qty, price = _optional(data, "qty"), _optional(data, "price")
    if not execution_id or qty is None or price is None:
        return report  # the cumulative figures still tell the fill
    execution = ExecutionReport(
        execution_id=str(execution_id),
        qty=qty,
        price=price,
        occurred_at=_time(data.get("timestamp")) or report.updated_at or _epoch(),
    )
    fields = {name: getattr(report, name) for name in OrderReport.__slots__}
    return OrderReport(**{**fields, "execution": execution, "raw": data})


def parse_position(raw: Any) -> PositionReport:
    """A position; a short's quantity is made negative whatever sign the broker gave it."""
    if not isinstance(raw, dict):
        raise ValueError("a position is not an object")
    symbol = _text(raw, "symbol")
    sign = -1 if raw.get("side") == "short" else 1
    qty = _required(raw, "qty")
    available = _optional(raw, "qty_available")
    return PositionReport(
        symbol=symbol,
        qty=sign * abs(qty) if raw.get("side") else qty,
        qty_available=sign * abs(available) if available is not None else sign * abs(qty),
        average_price=_optional(raw, "avg_entry_price"),
        market_value=_optional(raw, "market_value"),
        current_price=_optional(raw, "current_price"),
        raw=raw,
    )


def _decimal(value: Any, name: str) -> Decimal:
    if isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise ValueError(f"{name} is {value!r}") from error
    if not number.is_finite():
        raise ValueError(f"{name} is {value!r}")
    return number


def _required(raw: Raw, name: str) -> Decimal:
    if raw.get(name) in (None, ""):
        raise ValueError(f"{name} is missing")
    return _decimal(raw[name], name)


def _optional(raw: Raw, name: str) -> Decimal | None:
    value = raw.get(name)
    return None if value in (None, "") else _decimal(value, name)


def _text(raw: Raw, name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is {value!r}")
    return value


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _epoch() -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00")


# --- errors ---------------------------------------------------------------------------------


def _problem(error: APIError) -> tuple[int | None, str, str, dict[str, Any]]:
    """Status, broker code, message and further fields; APIError's own properties raise on
    bodies that are not Alpaca's form."""
    status = error.status_code
    try:
        body = json.loads(str(error))
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return status, "", f"The broker answered {status} without a readable reason.", {}
    code = body.pop("code", "")
    message = str(body.pop("message", f"The broker answered {status}."))
    return status, str(code), message, body


def _submit_failure(error: APIError) -> Exception:
    """Which proof an error answer to an order POST gives (ALPACA.md 3 and 5.1)."""
    status, code, message, fields = _problem(error)
    detail: dict[str, Any] = {"status": status, "code": code, "fields": fields}
    if status == 422 and "client_order_id must be unique" in message:
        return DuplicateClientOrderId(message, **detail)
    # A numeric code marks the venue's own refusal; without one a gateway may have spoken.
    if status in (400, 403, 404, 422) and code.isdigit():
        return OrderRefused(message, **detail)
    # Keys refused: the venue never saw the order, but a look-up is cheap and certain.
    return OutcomeUnknown(message, **detail)


def _describe(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "The broker did not answer in time."
    if isinstance(error, requests.ConnectionError):
        return "The connection to the broker failed or was cut."
    return f"The broker's answer could not be read ({type(error).__name__})."
