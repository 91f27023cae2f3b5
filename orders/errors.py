"""What goes wrong with an order, typed (SPEC O11): `code` is stable, the message says what to do
next. What went wrong at the broker's edge is `ordinis.broker.errors`."""


class OrderError(Exception):
    """Base of the three."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OrderSubmissionError(OrderError):
    """The order was not taken; nothing was stored and nothing was sent."""


class OrderCancellationError(OrderError):
    """The broker could not be told to cancel. The wish is kept, and tried again until the order
    has ended."""


class OrderStatusError(OrderError):
    """What became of the order could not be learnt now. Nothing was concluded from it."""
