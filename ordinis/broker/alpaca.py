"""Alpaca as a `Broker`: which address answers which question, and all of its pages.

`transport` makes the requests safe, `parsing` reads the bodies. Never re-sends an order, never
flattens with close_position (it can't carry a client order id), never trusts `submitted_at`.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from ordinis.broker import parsing
from ordinis.broker.budget import Budget, NoStore, Store
from ordinis.broker.data_host import data_url
from ordinis.broker.errors import BrokerRefused, BrokerUnavailable, OutcomeUnknown
from ordinis.broker.parsing import parse_order, parse_position, parse_trade_update
from ordinis.broker.port import (
    AccountReport,
    ActivityReport,
    AssetReport,
    CalendarDay,
    CancelReport,
    ClockReport,
    ConfigurationReport,
    Listing,
    OrderReport,
    OrderRequest,
    PositionReport,
    QuoteReport,
    ReplaceRequest,
)
from ordinis.broker.transport import Transport, path_part
from ordinis.numbers import plain

T = TypeVar("T")
ORDERS_PAGE = 500  # the most that Alpaca lists at once
ACTIVITIES_PAGE = 100
MOST_PAGES = 40
QUOTE_TIMEOUT = 2.0  # seconds; a quote that comes later helps nobody

__all__ = ["AlpacaBroker", "parse_order", "parse_position", "parse_trade_update"]


class AlpacaBroker:
    """`ordinis.broker.port.Broker` over Alpaca's Trading API. Safe to share between threads.

    Quotes come from `quotes_url`, else from where `data_host` says. Raises ValueError when that
    host must not be given the keys.
    """

    def __init__(
        self,
        *,
        url: str,
        key_id: str,
        secret_key: str,
        timeout: float,
        store: Store | None = None,
        quotes_url: str = "",
    ) -> None:
        self._http = Transport(
            url=url,
            key_id=key_id,
            secret_key=secret_key,
            timeout=timeout,
            budget=Budget(store or NoStore()),
        )
        address = data_url(url, given=quotes_url)
        # The data host counts requests on its own: its word must not hold back an order.
        self._data = address and Transport(
            url=address,
            key_id=key_id,
            secret_key=secret_key,
            timeout=min(timeout, QUOTE_TIMEOUT),
            budget=Budget(NoStore()),
            attempts=1,
        )

    # --- the account ----------------------------------------------------------------------

    def account(self) -> AccountReport:
        return _read(parsing.parse_account, self._http.read("/account"))

    def configuration(self) -> ConfigurationReport:
        return _read(parsing.parse_configuration, self._http.read("/account/configurations"))

    def suspend_trade(self, suspended: bool) -> ConfigurationReport:
        answer = self._http.write("PATCH", "/account/configurations", {"suspend_trade": suspended})
        return _told(parsing.parse_configuration, answer)

    def positions(self) -> Listing[PositionReport]:
        return _list(parse_position, self._http.read("/positions"))

    def position(self, symbol: str) -> PositionReport | None:
        return _found(parse_position, self._http.find(f"/positions/{path_part(symbol)}"))

    # --- orders ---------------------------------------------------------------------------

    def open_orders(self) -> Listing[OrderReport]:
        return self._orders({"status": "open"})

    def orders_since(self, after: datetime) -> Listing[OrderReport]:
        return self._orders({"status": "all"}, stop_before=after)

    def order(self, broker_order_id: str) -> OrderReport | None:
        path = f"/orders/{path_part(broker_order_id)}"
        return _found(parse_order, self._http.find(path, {"nested": "true"}))

    def order_by_client_id(self, client_order_id: str) -> OrderReport | None:
        query = {"client_order_id": client_order_id}
        return _found(parse_order, self._http.find("/orders:by_client_order_id", query))

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
        if request.stop_loss is None:
            prices = ("limit_price", "stop_price", "trail_price", "trail_percent")
            body |= _amounts(request, *prices)
        else:
            body["order_class"] = "oco"
            body["take_profit"] = _amounts(request, "limit_price")
            body["stop_loss"] = _amounts(request.stop_loss, "stop_price", "limit_price")
        report = _told(parse_order, self._http.write("POST", "/orders", body))
        return _same(report, request.client_order_id)

    def replace(self, broker_order_id: str, request: ReplaceRequest) -> OrderReport:
        body: dict[str, Any] = {"client_order_id": request.client_order_id}
        body |= _amounts(request, "qty", "limit_price", "stop_price")
        path = f"/orders/{path_part(broker_order_id)}"
        report = _told(parse_order, self._http.write("PATCH", path, body))
        return _same(report, request.client_order_id)

    def cancel(self, broker_order_id: str) -> bool:
        try:
            self._http.cancel(f"/orders/{path_part(broker_order_id)}")
        except BrokerUnavailable as error:
            if error.status == 404 and "not found" in error.message:
                return False
            raise
        return True

    def cancel_all(self) -> tuple[CancelReport, ...]:
        answer = self._http.cancel("/orders")
        if not isinstance(answer, list):
            raise BrokerUnavailable("The broker's answer to the cancel of all is not a list.")
        return tuple(_cancel_report(item) for item in answer if isinstance(item, dict))

    # --- the exchange ---------------------------------------------------------------------

    def clock(self) -> ClockReport:
        return _read(parsing.parse_clock, self._http.read("/clock"))

    def calendar(self, start: date, end: date) -> Listing[CalendarDay]:
        query = {"start": start.isoformat(), "end": end.isoformat()}
        return _list(parsing.parse_calendar_day, self._http.read("/calendar", query))

    def asset(self, symbol: str) -> AssetReport | None:
        return _found(parsing.parse_asset, self._http.find(f"/assets/{path_part(symbol)}"))

    def assets(self) -> Listing[AssetReport]:
        query = {"status": "active", "asset_class": "us_equity"}
        return _list(parsing.parse_asset, self._http.read("/assets", query))

    def quote(self, symbol: str) -> QuoteReport | None:
        if not self._data:
            return None
        try:
            answer = self._data.find(f"/stocks/{path_part(symbol)}/quotes/latest")
        except BrokerRefused:  # market data are a permission of their own
            return None
        report = _found(parsing.parse_quote, answer)
        if report is not None and report.symbol != symbol:
            raise BrokerUnavailable("The broker answered with another symbol's quote.")
        return report

    # --- activities: alpaca-py has no method for them ---------------------------------------

    def fills_since(self, after: datetime) -> Listing[ActivityReport]:
        moment = after.astimezone(UTC).isoformat().replace("+00:00", "Z")
        return self._activities("/account/activities/FILL", {"after": moment, "direction": "asc"})

    def activities(self, day: date) -> Listing[ActivityReport]:
        query = {"date": day.isoformat(), "category": "non_trade_activity"}
        return self._activities("/account/activities", query)

    def _activities(self, path: str, query: dict[str, Any]) -> Listing[ActivityReport]:
        def ask(last: Any) -> Any:
            token = {"page_token": last["id"]} if last else {}
            return self._http.read(path, {**query, **token, "page_size": ACTIVITIES_PAGE})

        return _pages(ask, parsing.parse_activity, size=ACTIVITIES_PAGE)

    def _orders(
        self, query: dict[str, Any], stop_before: datetime | None = None
    ) -> Listing[OrderReport]:
        """Newest first by the ids' cursor: times of submission move while pages are read."""

        def ask(last: Any) -> Any:
            cursor = {"before_order_id": last["id"]} if last else {}
            fixed = {"limit": ORDERS_PAGE, "direction": "desc"}
            return self._http.read("/orders", {**query, **fixed, **cursor})

        def is_older(raw: Any) -> bool:
            created = parsing.parse_time(raw.get("created_at")) if isinstance(raw, dict) else None
            return stop_before is not None and created is not None and created < stop_before

        return _pages(ask, parse_order, size=ORDERS_PAGE, is_past=is_older)


def _pages(
    ask: Callable[[Any], Any],
    parse: Callable[[Any], T],
    *,
    size: int,
    is_past: Callable[[Any], bool] = lambda raw: False,
) -> Listing[T]:
    """All pages; `ask` gets the last raw item of the page before. A page that fails after the
    first leaves the list incomplete; the first one raises."""
    pages: list[Listing[T]] = []
    last: Any = None
    seen: set[str] = set()
    for _ in range(MOST_PAGES):
        try:
            answer = ask(last)
        except BrokerUnavailable as error:
            if last is None:
                raise
            return parsing.joined([*pages, _cut_off(error.message)])
        page = _list(parse, answer)
        fresh = [raw for raw in answer if not is_past(raw)]
        pages.append(page if len(fresh) == len(answer) else _list(parse, fresh))
        if len(answer) < size or len(fresh) < len(answer):
            return parsing.joined(pages)
        last = answer[-1]
        key = str(last.get("id")) if isinstance(last, dict) else ""
        if not key or key in seen:
            return parsing.joined([*pages, _incomplete("a page of the list repeated itself")])
        seen.add(key)
    return parsing.joined([*pages, _cut_off("there were more pages than are read")])


def _incomplete(reason: str) -> Listing[Any]:
    return Listing(items=(), complete=False, reason=reason)


def _cut_off(reason: str) -> Listing[Any]:
    return Listing(items=(), complete=False, reason=reason, cut_off=True)


def _read(parse: Callable[[Any], T], raw: Any) -> T:
    try:
        return parse(raw)
    except ValueError as error:
        raise BrokerUnavailable(f"The broker's answer is unusable: {error}.") from error


def _list(parse: Callable[[Any], T], raw: Any) -> Listing[T]:
    try:
        return parsing.parse_list(raw, parse)
    except ValueError as error:
        raise BrokerUnavailable(f"The broker's answer is unusable: {error}.") from error


def _found(parse: Callable[[Any], T], raw: Any | None) -> T | None:
    return None if raw is None else _read(parse, raw)


def _told(parse: Callable[[Any], T], raw: Any) -> T:
    """The answer to a write: unusable, it proves nothing about whether the write happened."""
    try:
        return parse(raw)
    except ValueError as error:
        raise OutcomeUnknown(f"The broker's answer is unusable: {error}.") from error


def _amounts(request: object, *names: str) -> dict[str, str]:
    """Those that are given, as the broker takes them."""
    values = ((name, getattr(request, name)) for name in names)
    return {name: plain(value) for name, value in values if value is not None}


def _same(report: OrderReport, client_order_id: str) -> OrderReport:
    if report.client_order_id != client_order_id:
        raise OutcomeUnknown("The broker answered with another order.")
    return report


def _cancel_report(raw: dict[str, Any]) -> CancelReport:
    status = raw.get("status")
    body = raw.get("body")
    code = status if isinstance(status, int) else 0
    return CancelReport(
        broker_order_id=str(raw.get("id", "")),
        accepted=200 <= code < 300,
        status=code,
        message=str(body.get("message", "")) if isinstance(body, dict) else "",
    )
