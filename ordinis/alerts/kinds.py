"""What the kinds of problems are called where people read: the one table of codes and words.

Written so that "To act on: …" and "Over: …" can stand before each. Codes of the scorecard, and
any that is not here, are told as their code in words.
"""

from typing import Final

_WORDS: Final = {
    "alert_channel_dead": "Alert channel dead",
    "alert_channels_wrong": "Alert channel or rule unusable",
    "books_old": "Book not compared with the broker for long",
    "break_average_price": "Average price differs",
    "break_buying_power": "Buying power differs",
    "break_cash": "Cash differs",
    "break_escalated": "Break left waiting too long",
    "break_mass": "Many positions differ at once",
    "break_order_external": "Open order that was not placed here",
    "break_order_fill": "Filled quantity of an order differs",
    "break_order_missing": "Open order unknown at the broker",
    "break_order_status": "Status of an order differs",
    "break_orphan": "Position at the broker only",
    "break_quantity": "Shares of a position differ",
    "break_side": "Position long on one side, short on the other",
    "break_split": "Shares differ by the ratio of a split",
    "break_trade_bust": "Trade taken back or corrected by the broker",
    "break_zombie": "Position in our book only",
    "breaker_open": "Circuit breaker open",
    "breaker_overridden": "Circuit breaker overridden",
    "calendar_not_read": "Exchange calendar not taken over",
    "cancel_pending": "Order not cancelled yet",
    "dependent_failed": "Exit that never reached the broker",
    "dependent_rejected": "Exit refused by the broker",
    "dependent_waiting": "Exit that can't be sent",
    "filled_short": "Order called filled with too few shares",
    "late_report": "Late report on an order",
    "mismatched_order": "Another order at the broker under our id",
    "order_missing": "Open order unknown at the broker",
    "overfill": "More filled than was ordered",
    "polls_held_back": "Polls held back by the request limit",
    "process_silent": "Process without a sign of life",
    "reconciliation_failing": "Comparisons with the broker keep failing",
    "reconciliation_incomplete": "Comparison with the broker incomplete",
    "report_not_taken_in": "Report on an order not taken in",
    "stream_down": "Broker's stream down",
    "stream_message": "Message of the stream not taken in",
    "trade_bust": "Trade taken back by the broker",
    "trade_correct": "Trade corrected by the broker",
    "trading_halted": "Trading halted",
    "unknown_status": "Order status that Ordinis does not know",
}


def words(code: str) -> str:
    """The kind of problem, for people."""
    return _WORDS.get(code) or code.replace("_", " ").capitalize()
