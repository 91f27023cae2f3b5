"""Given this book and this broker: which differences, of what figures, cause and severity."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from reconciliation.compare import compare
from reconciliation.facts import BookPosition, Tolerances
from tests.reconciliation.scenarios import (
    Expected,
    Scenario,
    action,
    as_expected,
    by_fill,
    by_split,
    by_trades,
    in_mass,
    many,
    of,
    ours,
    power,
    says,
    theirs,
    traded,
)

KO = {"KO": ("100", "60")}


def of_ko(kind: str, local: str, broker: str, value: str | None, **more: Any) -> Expected:
    return Expected(
        kind=kind, subject="position/KO", local=local, broker=broker, value=value, **more
    )


def of_order(kind: str, name: str, local: str, broker: str, **more: Any) -> Expected:
    return Expected(kind=kind, subject=f"order/{name}", local=local, broker=broker, **more)


POSITIONS = [
    Scenario(name="two equal books do not differ", book=of(KO), facts=says(KO)),
    Scenario(name="two empty books do not differ", book=of(), facts=says()),
    Scenario(
        name="a position with no shares on either side is none",
        book=of({"KO": ("0",)}),
        facts=says({"PEP": ("0",)}),
    ),
    Scenario(
        name="what only we hold is a zombie, worth what it cost",
        book=of(KO),
        facts=says(),
        expected=[of_ko("zombie", "100", "0", "6000", severity="critical")],
    ),
    Scenario(
        name="a zombie of little worth is to look at",
        book=of({"KO": ("5", "60")}),
        facts=says(),
        expected=[of_ko("zombie", "5", "0", "300")],
    ),
    Scenario(
        name="a short that the broker does not know is a zombie",
        book=of({"KO": ("-5", "60")}),
        facts=says(),
        expected=[of_ko("zombie", "-5", "0", "300")],
    ),
    Scenario(
        name="what only the broker holds is an orphan, critical however small",
        book=of(),
        facts=says({"KO": ("1", "60", "61")}),
        expected=[of_ko("orphan", "0", "1", "61", severity="critical")],
    ),
    Scenario(
        name="a short that only the broker knows is an orphan",
        book=of(),
        facts=says({"KO": ("-2", "60", "61")}),
        expected=[of_ko("orphan", "0", "-2", "122", severity="critical")],
    ),
    Scenario(
        name="the broker holds more",
        book=of(KO),
        facts=says({"KO": ("107", "60", "61")}),
        expected=[of_ko("quantity", "100", "107", "427")],
    ),
    Scenario(
        name="the broker holds less",
        book=of(KO),
        facts=says({"KO": ("93", "60", "61")}),
        expected=[of_ko("quantity", "100", "93", "427")],
    ),
    Scenario(
        name="a short differs",
        book=of({"KO": ("-100", "60")}),
        facts=says({"KO": ("-93", "60", "61")}),
        expected=[of_ko("quantity", "-100", "-93", "427")],
    ),
    Scenario(
        name="one unit in the last decimal is a difference",
        book=of({"KO": ("1591.166892", "60")}),
        facts=says({"KO": ("1591.166892001", "60")}),
        expected=[of_ko("quantity", "1591.166892", "1591.166892001", "0.00000006")],
    ),
    Scenario(
        name="one unit in the last decimal is a whole zombie",
        book=of({"KO": ("0.000000001", "60")}),
        facts=says(),
        expected=[of_ko("zombie", "0.000000001", "0", "0.00000006")],
    ),
    Scenario(
        name="trailing zeros are no difference",
        book=of({"KO": ("100", "60")}),
        facts=says({"KO": ("100.000000000", "60.00")}),
    ),
    Scenario(
        name="long here and short there is a side, critical however small",
        book=of({"KO": ("1", "60")}),
        facts=says({"KO": ("-1", "60", "61")}),
        expected=[of_ko("side", "1", "-1", "122", severity="critical")],
    ),
    Scenario(
        name="short here and long there is a side",
        book=of({"KO": ("-1", "60")}),
        facts=says({"KO": ("2", "60", "61")}),
        expected=[of_ko("side", "-1", "2", "183", severity="critical")],
    ),
    Scenario(
        name="long to short through zero by one trade outside",
        book=of(KO),
        facts=says({"KO": ("-50", "65", "65")}, trades={"KO": traded(("-150", "65"))}),
        expected=[
            of_ko(
                "side",
                "100",
                "-50",
                "9750",
                explained=by_trades("-150", "65", 0),
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="more than ten times what alerts is critical",
        book=of({"KO": ("100", "60")}),
        facts=says({"KO": ("117", "60", "60")}),
        expected=[of_ko("quantity", "100", "117", "1020", severity="critical")],
    ),
    Scenario(
        name="exactly ten times what alerts is not yet critical",
        book=of({"KO": ("100", "100")}),
        facts=says({"KO": ("110", "100", "100")}),
        expected=[of_ko("quantity", "100", "110", "1000")],
    ),
    Scenario(
        name="a position without any price has no value",
        book=of({"KO": ("100",)}),
        facts=says({"KO": ("90",)}),
        expected=[of_ko("quantity", "100", "90", None)],
    ),
    Scenario(
        name="without a present price the broker's average values it",
        book=of({"KO": ("100", "50")}),
        facts=says({"KO": ("99", "60")}),
        expected=[of_ko("quantity", "100", "99", "60")],
    ),
    Scenario(
        name="without the broker's prices ours values it",
        book=of({"KO": ("100", "50")}),
        facts=says({"KO": ("99",)}),
        expected=[of_ko("quantity", "100", "99", "50")],
    ),
    Scenario(
        name="differences come by symbol",
        book=of({"PEP": ("1", "50"), "AAPL": ("1", "50"), "KO": ("1", "50"), "MSFT": ("1", "50")}),
        facts=says({"KO": ("1", "50"), "MSFT": ("1", "50")}),
        expected=[
            Expected(kind="zombie", subject=f"position/{symbol}", local="1", value="50")
            for symbol in ("AAPL", "PEP")
        ],
    ),
]

AVERAGES = [
    Scenario(
        name="an average apart by less than half a percent is none",
        book=of(KO),
        facts=says({"KO": ("100", "60.29")}),
    ),
    Scenario(
        name="an average apart by exactly half a percent of the broker's is none",
        book=of({"KO": ("100", "59.70")}),
        facts=says({"KO": ("100", "60")}),
    ),
    Scenario(
        name="an average apart by more than half a percent is one, worth it on all shares",
        book=of({"KO": ("100", "59.69")}),
        facts=says({"KO": ("100", "60")}),
        expected=[of_ko("average_price", "59.69", "60", "31")],
    ),
    Scenario(
        name="an average that is too high here is one, too",
        book=of({"KO": ("-100", "60.31")}),
        facts=says({"KO": ("-100", "60")}),
        expected=[of_ko("average_price", "60.31", "60", "31")],
    ),
    Scenario(
        name="an average of a cheap share apart by one cent is none",
        book=of({"KO": ("100", "0.50")}),
        facts=says({"KO": ("100", "0.51")}),
    ),
    Scenario(
        name="an average of a cheap share apart by more than one cent is one",
        book=of({"KO": ("100", "0.50")}),
        facts=says({"KO": ("100", "0.511")}),
        expected=[of_ko("average_price", "0.5", "0.511", "1.1")],
    ),
    Scenario(
        name="where we know no average there is none to compare",
        book=of({"KO": ("100",)}),
        facts=says({"KO": ("100", "60")}),
    ),
    Scenario(
        name="where the broker names no average there is none to compare",
        book=of(KO),
        facts=says({"KO": ("100",)}),
    ),
    Scenario(
        name="where the shares differ the average is a part of that",
        book=of(KO),
        facts=says({"KO": ("101", "90", "60")}),
        expected=[of_ko("quantity", "100", "101", "60")],
    ),
    Scenario(
        name="what a closed position cost does not matter",
        book=of({"KO": ("0", "60")}),
        facts=says({"KO": ("0", "90")}),
    ),
    Scenario(
        name="trades out and back leave an average that nothing explains",
        book=of({"KO": ("100", "50")}, [ours("o1", side="sell")]),
        facts=says(
            {"KO": ("100", "60")},
            trades={"KO": traded(("-7", "61"), ("7", "62"))},
            actions={"KO": action("REORG", "0")},
        ),
        expected=[of_ko("average_price", "50", "60", "1000")],
    ),
]

SPLITS = [
    Scenario(
        name="two for one, named by the broker's activities",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "30", "31")}, actions={"KO": action("SPLIT", "10")}),
        expected=[of_ko("split", "10", "20", "310", explained=by_split("2:1", told=True))],
    ),
    Scenario(
        name="two for one, not named yet",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "30", "31")}),
        expected=[of_ko("split", "10", "20", "310", explained=by_split("2:1"))],
    ),
    Scenario(
        name="one for ten",
        book=of(KO),
        facts=says({"KO": ("10", "600", "610")}),
        expected=[of_ko("split", "100", "10", "54900", explained=by_split("1:10"))],
    ),
    Scenario(
        name="three for two",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("15", "40", "41")}),
        expected=[of_ko("split", "10", "15", "205", explained=by_split("3:2"))],
    ),
    Scenario(
        name="one for ten with the fraction paid out",
        book=of({"KO": ("105", "6")}),
        facts=says({"KO": ("10", "60", "60")}),
        expected=[of_ko("split", "105", "10", "5700", explained=by_split("1:10"))],
    ),
    Scenario(
        name="one for ten of a short",
        book=of({"KO": ("-100", "6")}),
        facts=says({"KO": ("-10", "60", "60")}),
        expected=[of_ko("split", "-100", "-10", "5400", explained=by_split("1:10"))],
    ),
    Scenario(
        name="more than a fraction missing after one for ten is no split alone",
        book=of({"KO": ("105", "6")}),
        facts=says({"KO": ("9", "60", "60")}),
        expected=[of_ko("quantity", "105", "9", "5760", severity="critical")],
    ),
    Scenario(
        name="a share more than one for ten gives is no split alone",
        book=of({"KO": ("100", "6")}),
        facts=says({"KO": ("11", "60", "60")}),
        expected=[of_ko("quantity", "100", "11", "5340", severity="critical")],
    ),
    Scenario(
        name="a purchase that doubles the shares is no split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "60", "60")}),
        expected=[of_ko("quantity", "10", "20", "600")],
    ),
    Scenario(
        name="a purchase at a twentieth of the price only looks like a split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "31.5", "3")}),
        expected=[of_ko("quantity", "10", "20", "30")],
    ),
    Scenario(
        name="averages halved with other shares are no split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("21", "30", "30")}),
        expected=[of_ko("quantity", "10", "21", "330")],
    ),
    Scenario(
        name="twice the shares without an average are no split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", None, "30")}),
        expected=[of_ko("quantity", "10", "20", "300")],
    ),
    Scenario(
        name="seven for five is a ratio that nobody makes",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("14", "42.857142857", "40")}),
        expected=[of_ko("quantity", "10", "14", "160")],
    ),
    Scenario(
        name="shares that a spin-off gave are the broker's own word",
        book=of(),
        facts=says({"KO": ("5", "20", "20")}, actions={"KO": action("SPIN", "5")}),
        expected=[
            of_ko(
                "orphan",
                "0",
                "5",
                "100",
                explained={"code": "corporate_action", "kind": "SPIN"},
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="a corporate action of other shares explains nothing",
        book=of(),
        facts=says({"KO": ("5", "20", "20")}, actions={"KO": action("SPIN", "4")}),
        expected=[of_ko("orphan", "0", "5", "100", severity="critical")],
    ),
    *(
        Scenario(
            name=f"{ratio} is made",
            book=of({"KO": ("600", "60")}),
            facts=says({"KO": (shares, average, "0.01")}),
            expected=[of_ko("split", "600", shares, value, explained=by_split(ratio))],
        )
        for ratio, shares, average, value in (
            ("100:1", "60000", "0.6", "594"),
            ("4:3", "800", "45", "2"),
            ("5:4", "750", "48", "1.5"),
            ("1:2", "300", "120", "3"),
            ("4:5", "480", "75", "1.2"),
            ("1:100", "6", "6000", "5.94"),
        )
    ),
    Scenario(
        name="101 for one is a ratio that nobody makes",
        book=of({"KO": ("1", "101")}),
        facts=says({"KO": ("101", "1", "1")}),
        expected=[of_ko("quantity", "1", "101", "100")],
    ),
    Scenario(
        name="ten for one with a cost that was rounded",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("100", "6.03", "6")}),
        expected=[of_ko("split", "10", "100", "540", explained=by_split("10:1"))],
    ),
    Scenario(
        name="one for ten at a cost that is one and a half percent less",
        book=of({"KO": ("100", "6.09")}),
        facts=says({"KO": ("10", "60", "6")}),
        expected=[of_ko("quantity", "100", "10", "540")],
    ),
    Scenario(
        name="one for ten of a short with the fraction paid out",
        book=of({"KO": ("-105", "6")}),
        facts=says({"KO": ("-10", "60", "60")}),
        expected=[of_ko("split", "-105", "-10", "5700", explained=by_split("1:10"))],
    ),
    Scenario(
        name="a part of the fraction paid out is no split alone",
        book=of({"KO": ("105", "6")}),
        facts=says({"KO": ("10.25", "60", "6")}),
        expected=[of_ko("quantity", "105", "10.25", "568.5")],
    ),
    Scenario(
        name="twice the shares where we know no average are no split",
        book=of({"KO": ("10",)}),
        facts=says({"KO": ("20", "30", "30")}),
        expected=[of_ko("quantity", "10", "20", "300")],
    ),
    Scenario(
        name="twice the shares that cost nothing here are no split",
        book=of({"KO": ("10", "0")}),
        facts=says({"KO": ("20", "30", "30")}),
        expected=[of_ko("quantity", "10", "20", "300")],
    ),
    Scenario(
        name="twice the shares that cost nothing there are no split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "0", "30")}),
        expected=[of_ko("quantity", "10", "20", "300")],
    ),
    Scenario(
        name="another corporate action does not name a split",
        book=of({"KO": ("10", "60")}),
        facts=says({"KO": ("20", "30", "31")}, actions={"KO": action("REORG", "10")}),
        expected=[of_ko("split", "10", "20", "310", explained=by_split("2:1"))],
    ),
]


def _apart_by(shares: int, price: str = "60") -> dict[str, tuple[str | None, ...]]:
    return {"KO": (str(100 + shares), "60", price)}


EXPLAINED = [
    Scenario(
        name="a trade outside for exactly these shares",
        book=of(KO),
        facts=says(_apart_by(7), trades={"KO": traded(("7", "61"))}),
        expected=[of_ko("quantity", "100", "107", "420", explained=by_trades("7", "61", 0))],
    ),
    Scenario(
        name="several trades outside that come to these shares",
        book=of(KO),
        facts=says(_apart_by(3), trades={"KO": traded(("5", "61"), ("-2", "62"))}),
        expected=[
            of_ko("quantity", "100", "103", "180", explained=by_trades("3", "60.333333333", 0, 1))
        ],
    ),
    Scenario(
        name="of older trades outside only the latest that account for it count",
        book=of(KO),
        facts=says(_apart_by(3), trades={"KO": traded(("40", "61"), ("3", "62"))}),
        expected=[of_ko("quantity", "100", "103", "180", explained=by_trades("3", "62", 1))],
    ),
    Scenario(
        name="a trade outside for a part of it",
        book=of(KO),
        facts=says(_apart_by(7), trades={"KO": traded(("5", "61"))}),
        expected=[
            of_ko(
                "quantity",
                "100",
                "107",
                "420",
                explained=by_trades("5", "61", 0, code="external_trades_in_part"),
            )
        ],
    ),
    Scenario(
        name="a trade outside the other way explains nothing",
        book=of(KO),
        facts=says(_apart_by(7), trades={"KO": traded(("-7", "61"))}),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="a trade outside of another symbol explains nothing",
        book=of(KO),
        facts=says(_apart_by(7), trades={"PEP": traded(("7", "61"))}),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="a buy of ours may have filled",
        book=of(KO, [ours("o1")]),
        facts=says(_apart_by(7), [theirs("o1")]),
        expected=[of_ko("quantity", "100", "107", "420", explained=by_fill("o1", "7"))],
    ),
    Scenario(
        name="a sell of ours may have filled",
        book=of(KO, [ours("o1", side="sell")]),
        facts=says(_apart_by(-7), [theirs("o1", side="sell")]),
        expected=[of_ko("quantity", "100", "93", "420", explained=by_fill("o1", "-7"))],
    ),
    Scenario(
        name="a buy of ours explains no shares that went",
        book=of(KO, [ours("o1")]),
        facts=says(_apart_by(-7), [theirs("o1")]),
        expected=[of_ko("quantity", "100", "93", "420")],
    ),
    Scenario(
        name="what is left of an order is too little for it",
        book=of(KO, [ours("o1", filled_qty="4")]),
        facts=says(_apart_by(7), [theirs("o1", filled_qty="4")]),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="an order whose outcome is unknown comes first",
        book=of(KO, [ours("o1"), ours("o2", status="unresolved", broker_order_id=None)]),
        facts=says(_apart_by(7), [theirs("o1")]),
        expected=[
            of_ko(
                "quantity",
                "100",
                "107",
                "420",
                explained={"code": "unresolved_order", "client_order_id": "c-o2"},
            )
        ],
    ),
    Scenario(
        name="an order of another symbol explains nothing",
        book=of(KO, [ours("o1", symbol="PEP")]),
        facts=says(_apart_by(7), [theirs("o1", symbol="PEP")]),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="an order that has ended explains nothing",
        book=of(KO, [ours("o1", status="canceled", is_open=False)]),
        facts=says(_apart_by(7)),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="no explanation makes an average's difference go away",
        book=of({"KO": ("100", "50")}, [ours("o1")]),
        facts=says({"KO": ("100", "60")}, [theirs("o1")], trades={"KO": traded(("7", "61"))}),
        expected=[of_ko("average_price", "50", "60", "1000")],
    ),
    Scenario(
        name="a sale outside for a part of it",
        book=of(KO),
        facts=says(_apart_by(-7), trades={"KO": traded(("-2", "61"), ("-3", "66"))}),
        expected=[
            of_ko(
                "quantity",
                "100",
                "93",
                "420",
                explained=by_trades("-5", "64", 0, 1, code="external_trades_in_part"),
            )
        ],
    ),
    Scenario(
        name="an order for exactly these shares",
        book=of(KO, [ours("o1", qty="7")]),
        facts=says(_apart_by(7), [theirs("o1", qty="7")]),
        expected=[of_ko("quantity", "100", "107", "420", explained=by_fill("o1", "7"))],
    ),
    Scenario(
        name="what is left of a sell of ours may have filled",
        book=of(KO, [ours("o1", side="sell", filled_qty="3")]),
        facts=says(_apart_by(-7), [theirs("o1", side="sell", filled_qty="3")]),
        expected=[of_ko("quantity", "100", "93", "420", explained=by_fill("o1", "-7"))],
    ),
]

ORDERS = [
    Scenario(
        name="an order that both know does not differ",
        book=of(orders=[ours("o1", filled_qty="3", status="partially_filled")]),
        facts=says(orders=[theirs("o1", filled_qty="3", status="partially_filled")]),
    ),
    Scenario(
        name="the broker has filled less than we have booked",
        book=of(orders=[ours("o1", filled_qty="5", status="partially_filled")]),
        facts=says(orders=[theirs("o1", filled_qty="3", status="partially_filled")]),
        expected=[of_order("order_fill", "o1", "5", "3", value="120", severity="critical")],
    ),
    Scenario(
        name="the broker has filled more than we have booked",
        book=of(orders=[ours("o1")]),
        facts=says(orders=[theirs("o1", filled_qty="3", status="partially_filled")]),
        expected=[of_order("order_fill", "o1", "0", "3", value="180", severity="critical")],
    ),
    Scenario(
        name="an order that moved while the list was read is not judged by it",
        book=of(orders=[ours("o1", filled_qty="5", status="partially_filled", moved=True)]),
        facts=says(orders=[theirs("o1")]),
    ),
    Scenario(
        name="a status that differs without a fill",
        book=of(orders=[ours("o1", status="pending_cancel")]),
        facts=says(orders=[theirs("o1", status="held")]),
        expected=[of_order("order_status", "o1", "0", "0")],
    ),
    Scenario(
        name="canceled with fills on both sides does not differ",
        book=of(
            {"KO": ("4", "60")},
            [ours("o1", filled_qty="4", status="canceled", is_open=False)],
        ),
        facts=says({"KO": ("4", "60")}),
    ),
    Scenario(
        name="canceled here with fills and still listed as open there",
        book=of(orders=[ours("o1", filled_qty="4", status="canceled", is_open=False)]),
        facts=says(orders=[theirs("o1", filled_qty="4", status="partially_filled")]),
        expected=[of_order("order_status", "o1", "4", "4")],
    ),
    Scenario(
        name="two reports of one order that agree with us",
        book=of(orders=[ours("o1")]),
        facts=says(orders=[theirs("o1"), theirs("o1")]),
    ),
    Scenario(
        name="two reports of one order make one difference",
        book=of(orders=[ours("o1")]),
        facts=says(orders=[theirs("o1", status="held"), theirs("o1", status="held")]),
        expected=[of_order("order_status", "o1", "0", "0")],
    ),
    Scenario(
        name="two reports of one external order make one difference",
        book=of(),
        facts=says(orders=[theirs("x1"), theirs("x1")]),
        expected=[of_order("order_external", "x1", "0", "10", value="600")],
    ),
    Scenario(
        name="a replaced order's old id is not missed, and its new one is known",
        book=of(orders=[ours("old", status="replaced", is_open=False), ours("new")]),
        facts=says(orders=[theirs("new")], missing=frozenset({"old"})),
    ),
    Scenario(
        name="a replaced order's old id that is still listed is a status, not an external order",
        book=of(orders=[ours("old", status="replaced", is_open=False), ours("new")]),
        facts=says(orders=[theirs("old"), theirs("new")]),
        expected=[of_order("order_status", "old", "0", "0")],
    ),
    Scenario(
        name="an order open here that the broker does not know, for what was left of it",
        book=of(orders=[ours("o1", filled_qty="4")]),
        facts=says(missing=frozenset({"o1"})),
        expected=[of_order("order_missing", "o1", "6", "0", severity="critical")],
    ),
    Scenario(
        name="an order that a look-up missed and the list names is there",
        book=of(orders=[ours("o1")]),
        facts=says(orders=[theirs("o1")], missing=frozenset({"o1"})),
    ),
    Scenario(
        name="an order that no list names and nobody looked up is not missed",
        book=of(orders=[ours("o1")]),
        facts=says(),
    ),
    Scenario(
        name="an order that ended here may be unknown there",
        book=of(orders=[ours("o1", status="filled", is_open=False)]),
        facts=says(missing=frozenset({"o1"})),
    ),
    Scenario(
        name="a buy placed in the broker's own app",
        book=of(),
        facts=says(orders=[theirs("x1")]),
        expected=[of_order("order_external", "x1", "0", "10", value="600")],
    ),
    Scenario(
        name="a sell placed in the broker's own app, half filled, however large",
        book=of(),
        facts=says(orders=[theirs("x1", side="sell", qty="100", filled_qty="40")]),
        expected=[of_order("order_external", "x1", "0", "-60", value="3600")],
    ),
    Scenario(
        name="an external order in dollars says nothing of shares",
        book=of(),
        facts=says(orders=[theirs("x1", qty=None, price=None)]),
        expected=[of_order("order_external", "x1", "0", "0")],
    ),
    Scenario(
        name="an order of ours whose broker id we have not learnt is not external",
        book=of(orders=[ours("o1", broker_order_id=None, status="unresolved")]),
        facts=says(orders=[theirs("o1")]),
    ),
]

ACCOUNT = [
    Scenario(
        name="cash apart by one dollar is none",
        book=of(cash="1000"),
        facts=says(cash="1001"),
    ),
    Scenario(
        name="cash apart by more than one dollar is one",
        book=of(cash="1000"),
        facts=says(cash="998"),
        expected=[
            Expected(kind="cash", subject="account/cash", local="1000", broker="998", value="2")
        ],
    ),
    Scenario(
        name="much cash apart is critical",
        book=of(cash="5000"),
        facts=says(cash="3999"),
        expected=[
            Expected(
                kind="cash",
                subject="account/cash",
                local="5000",
                broker="3999",
                value="1001",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="cash is not judged while shares differ without a cause",
        book=of(KO, cash="1000"),
        facts=says(_apart_by(7), cash="580"),
        expected=[of_ko("quantity", "100", "107", "420")],
    ),
    Scenario(
        name="cash is judged while shares differ by a trade outside, which is booked",
        book=of(KO, cash="1000"),
        facts=says(_apart_by(7), cash="580", trades={"KO": traded(("7", "60"))}),
        expected=[
            of_ko("quantity", "100", "107", "420", explained=by_trades("7", "60", 0)),
            Expected(kind="cash", subject="account/cash", local="1000", broker="580", value="420"),
        ],
    ),
    Scenario(
        name="cash is judged while an average differs",
        book=of(KO, cash="1000"),
        facts=says({"KO": ("100", "61")}, cash="990"),
        expected=[
            of_ko("average_price", "60", "61", "100"),
            Expected(kind="cash", subject="account/cash", local="1000", broker="990", value="10"),
        ],
    ),
    Scenario(
        name="a book that was opened without its cash has none to compare",
        book=of(cash=None),
        facts=says(cash="580"),
    ),
    Scenario(
        name="buying power pinned to $200",
        book=of(baseline=power("400000")),
        facts=says(standing=power("200")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="400000",
                broker="200",
                value="399800",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="buying power that follows a gain fourfold",
        book=of(baseline=power("400000")),
        facts=says(standing=power("420000", equity="105000")),
    ),
    Scenario(
        name="buying power that stands still in a large gain",
        book=of(baseline=power("400000")),
        facts=says(standing=power("400000", equity="105000")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="420000",
                broker="400000",
                value="20000",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="buying power that an order reserves",
        book=of(baseline=power("400000")),
        facts=says(standing=power("380000", reserved="20000")),
    ),
    Scenario(
        name="buying power while an order fills",
        book=of(baseline=power("380000", reserved="20000")),
        facts=says(standing=power("380000", gross="20000")),
    ),
    Scenario(
        name="half of what was turned over may be held against it in another way",
        book=of(baseline=power("400000")),
        facts=says(standing=power("390000", gross="20000")),
    ),
    Scenario(
        name="two percent of what equity allows may differ",
        book=of(baseline=power("400000")),
        facts=says(standing=power("392000")),
    ),
    Scenario(
        name="more than two percent of what equity allows may not",
        book=of(baseline=power("400000")),
        facts=says(standing=power("391999")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="400000",
                broker="391999",
                value="8001",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="a small account may differ by a hundred dollars",
        book=of(baseline=power("4000", equity="1000")),
        facts=says(standing=power("3900", equity="1000")),
    ),
    Scenario(
        name="a small account may not differ by more than a hundred dollars",
        book=of(baseline=power("4000", equity="1000")),
        facts=says(standing=power("3899", equity="1000")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="4000",
                broker="3899",
                value="101",
            )
        ],
    ),
    Scenario(
        name="another multiplier begins buying power anew",
        book=of(baseline=power("400000")),
        facts=says(standing=power("100000", multiplier="1")),
    ),
    Scenario(
        name="without earlier figures buying power is not judged",
        book=of(),
        facts=says(standing=power("200")),
    ),
    Scenario(
        name="cash is not judged while a fill of ours may be on its way",
        book=of(KO, [ours("o1")], cash="1000"),
        facts=says(_apart_by(7), [theirs("o1")], cash="580"),
        expected=[of_ko("quantity", "100", "107", "420", explained=by_fill("o1", "7"))],
    ),
    Scenario(
        name="a broker that names no cash has none to compare",
        book=of(cash="1000"),
        facts=says(),
    ),
    Scenario(
        name="a broker that names no multiplier has no buying power to compare",
        book=of(baseline=power("400000")),
        facts=says(),
    ),
    Scenario(
        name="buying power when a position is sold",
        book=of(baseline=power("380000", gross="20000")),
        facts=says(standing=power("400000")),
    ),
    Scenario(
        name="buying power when one order of two is cancelled",
        book=of(baseline=power("300000", reserved="100000")),
        facts=says(standing=power("340000", reserved="60000")),
    ),
    Scenario(
        name="half of what a sale and a cancel freed may be held in another way",
        book=of(baseline=power("300000", gross="60000", reserved="40000")),
        facts=says(standing=power("350000")),
    ),
    Scenario(
        name="less than half of what a sale and a cancel freed is a difference",
        book=of(baseline=power("300000", gross="60000", reserved="40000")),
        facts=says(standing=power("349999")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="400000",
                broker="349999",
                value="50001",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="less than half of what a purchase and an order take is a difference",
        book=of(baseline=power("300000", gross="60000", reserved="40000")),
        facts=says(standing=power("249999", gross="40000", reserved="60000")),
        expected=[
            Expected(
                kind="buying_power",
                subject="account/buying_power",
                local="300000",
                broker="249999",
                value="50001",
                severity="critical",
            )
        ],
    ),
    Scenario(
        name="an account in debt has its tolerance, too",
        book=of(baseline=power("0", equity="-100000")),
        facts=says(standing=power("8000", equity="-100000")),
    ),
]


def _mass(local: str, broker: str, value: str | None, hint: str, *symbols: str) -> Expected:
    return Expected(
        kind="mass",
        subject="account/positions",
        local=local,
        broker=broker,
        value=value,
        explained=in_mass(int(local) - int(broker), int(local), hint, *symbols),
        severity="critical",
    )


def _zombies(*numbers: int) -> list[Expected]:
    return [
        Expected(kind="zombie", subject=f"position/S{number:02}", local="10", value="500")
        for number in numbers
    ]


MASSES = [
    Scenario(
        name="an empty list for five positions is one mass",
        book=of(many(5)),
        facts=says(),
        expected=[_mass("5", "0", "2500", "account_reset", *many(5))],
    ),
    Scenario(
        name="an empty list for four positions are four zombies",
        book=of(many(4)),
        facts=says(),
        expected=_zombies(1, 2, 3, 4),
    ),
    Scenario(
        name="five of nine are a mass",
        book=of(many(9)),
        facts=says({symbol: held for symbol, held in many(9).items() if symbol > "S05"}),
        expected=[_mass("9", "4", "2500", "", *many(5))],
    ),
    Scenario(
        name="five of ten are five",
        book=of(many(10)),
        facts=says({symbol: held for symbol, held in many(10).items() if symbol > "S05"}),
        expected=_zombies(1, 2, 3, 4, 5),
    ),
    Scenario(
        name="other symbols altogether are a mass",
        book=of({"AAPL": ("1", "50"), "MSFT": ("1", "50"), "KO": ("1", "50")}),
        facts=says({"JPM": ("1", "50"), "XOM": ("1", "50")}),
        expected=[_mass("5", "0", "250", "wrong_account", "AAPL", "JPM", "KO", "MSFT", "XOM")],
    ),
    Scenario(
        name="of five one stands as a break already, so four are new",
        book=of(many(5), known=frozenset({"position/S03"})),
        facts=says(),
        expected=_zombies(1, 2, 3, 4, 5),
    ),
    Scenario(
        name="a standing break is shown beside a mass",
        book=of(many(6), known=frozenset({"position/S03"})),
        facts=says(),
        expected=[
            _mass("6", "1", "2500", "account_reset", "S01", "S02", "S04", "S05", "S06"),
            *_zombies(3),
        ],
    ),
    Scenario(
        name="five orders that the broker does not know are a mass",
        book=of(orders=[ours(f"o{number}") for number in range(5)]),
        facts=says(missing=frozenset(f"o{number}" for number in range(5))),
        expected=[_mass("5", "0", None, "", *5 * ["KO"])],
    ),
    Scenario(
        name="orders that are open and there make five positions a smaller part",
        book=of(many(5), [ours(f"o{number}") for number in range(5)]),
        facts=says(orders=[theirs(f"o{number}") for number in range(5)]),
        expected=_zombies(1, 2, 3, 4, 5),
    ),
    Scenario(
        name="nothing is concluded of the account's figures beside a mass",
        book=of(many(5), cash="1000", baseline=power("400000")),
        facts=says(cash="7", standing=power("200")),
        expected=[_mass("5", "0", "2500", "account_reset", *many(5))],
    ),
    Scenario(
        name="five averages are five",
        book=of(many(5)),
        facts=says(dict.fromkeys(many(5), ("10", "60"))),
        expected=[
            Expected(
                kind="average_price",
                subject=f"position/{symbol}",
                local="50",
                broker="60",
                value="100",
            )
            for symbol in many(5)
        ],
    ),
    Scenario(
        name="five external orders are five",
        book=of(),
        facts=says(orders=[theirs(f"x{number}") for number in range(5)]),
        expected=[
            of_order("order_external", f"x{number}", "0", "10", value="600") for number in range(5)
        ],
    ),
    Scenario(
        name="orders that never reached the broker, or have ended, make no mass smaller",
        book=of(
            many(5),
            [
                *(ours(f"n{number}", broker_order_id=None) for number in range(5)),
                *(ours(f"e{number}", status="filled", is_open=False) for number in range(5)),
            ],
        ),
        facts=says(),
        expected=[_mass("5", "0", "2500", "account_reset", *many(5))],
    ),
    Scenario(
        name="an account that was handed over with other shares beside ours is no other account",
        book=of({**many(4), "KO": ("1", "50")}),
        facts=says({"KO": ("1", "50"), "PEP": ("1", "50"), "XOM": ("1", "50")}),
        expected=[_mass("7", "1", "2100", "", "PEP", "S01", "S02", "S03", "S04", "XOM")],
    ),
    Scenario(
        name="five orphans of an empty book are a mass without a hint",
        book=of(),
        facts=says(many(5)),
        expected=[_mass("5", "0", "2500", "", *many(5))],
    ),
    Scenario(
        name="a mass names twenty and counts all",
        book=of(many(30)),
        facts=says(),
        expected=[_mass("30", "0", "15000", "account_reset", *many(20))],
    ),
]

ALL = [*POSITIONS, *AVERAGES, *SPLITS, *EXPLAINED, *ORDERS, *ACCOUNT, *MASSES]


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.name) for each in ALL])
def test_given_this_book_and_this_broker(scenario: Scenario) -> None:
    found = compare(scenario.book, scenario.facts)

    assert [as_expected(item) for item in found] == list(scenario.expected)


def test_two_accounts_with_the_same_symbol_are_compared_each_with_its_own() -> None:
    facts = [says({"KO": ("100", "60")}), says({"KO": ("40", "60", "60")})]
    book = of(KO)

    found = [[as_expected(item) for item in compare(book, each)] for each in facts]

    assert found == [[], [of_ko("quantity", "100", "40", "3600", severity="critical")]]


def test_a_difference_names_its_order_its_averages_and_the_ledger_it_was_compared_at() -> None:
    book = of(orders=[ours("o1", status="held")])
    position = BookPosition(qty=Decimal(3), average_price=Decimal(59), ledger_version=7)
    traded_at = {"KO": traded(("1", "62"))}

    share, order = compare(
        replace(book, positions={"KO": position}),
        says({"KO": ("4", "60", "61")}, [theirs("o1")], trades=traded_at),
    )

    assert (share.symbol, share.ledger_version, share.price, share.trade_price) == ("KO", 7, 61, 62)
    assert (share.local_average_price, share.broker_average_price) == (59, 60)
    assert share.difference == 1
    assert (order.order, order.broker_order_id, order.symbol) == (book.orders[0].id, "o1", "KO")
    assert (order.local_status, order.broker_status) == ("held", "new")


def test_what_is_tolerated_can_be_set() -> None:
    book, facts = of(KO, cash="1000"), says({"KO": ("100", "61")}, cash="990")

    loose = compare(book, facts, Tolerances(cash=Decimal(10), average_price_pct=Decimal(2)))
    tight = compare(book, facts, Tolerances(cash=Decimal(9)))

    assert loose == []
    assert [item.kind for item in tight] == ["average_price", "cash"]


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len({each.name for each in ALL}) == len(ALL) >= 60
