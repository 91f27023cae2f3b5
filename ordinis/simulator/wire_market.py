"""JSON in the shapes of Alpaca's clock, calendar and latest market data.

Only shapes: nothing is decided or changed here.
"""

from datetime import date, datetime

from ordinis.simulator import holidays, moments
from ordinis.simulator.holidays import NEW_YORK
from ordinis.simulator.market import Market
from ordinis.simulator.prices import Quote
from ordinis.simulator.wire import Json


def clock(market: Market, moment: int) -> Json:
    """New York's own time, as Alpaca's clock tells it."""
    local = datetime.fromtimestamp(moment // moments.SECOND, NEW_YORK).isoformat()
    return {
        "timestamp": f"{local[:19]}.{moment % moments.SECOND:09d}{local[19:]}",
        "is_open": market.session(moment) == "open",
        "next_open": market.next_open(moment).isoformat(),
        "next_close": market.next_close(moment).isoformat(),
    }


def calendar_day(day: date) -> Json:
    return {
        "date": day.isoformat(),
        "open": f"{holidays.OPEN:%H:%M}",
        "close": f"{holidays.close_of(day):%H:%M}",
        "session_open": f"{holidays.EARLY:%H%M}",
        "session_close": f"{holidays.late_of(day):%H%M}",
        "settlement_date": holidays.next_trading_day(day).isoformat(),
    }


def latest_quote(it: Quote, moment: int) -> Json:
    """A quote as Alpaca's data host sends it: numbers, not strings."""
    return {
        "t": moments.text(moment),
        "ax": "V",
        "ap": float(it.ask),
        "as": 4,
        "bx": "V",
        "bp": float(it.bid),
        "bs": 4,
        "c": ["R"],
        "z": "C",
    }


def latest_trade(it: Quote, moment: int) -> Json:
    return {
        "t": moments.text(moment),
        "x": "V",
        "p": float(it.last),
        "s": 100,
        "c": ["@"],
        "i": moment % 10**12,
        "z": "C",
    }
