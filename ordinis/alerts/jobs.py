"""What the clock calls. Safe to run twice at once, and bounded in time: see the parts."""

from ordinis.alerts.channels import configured
from ordinis.alerts.delivery import deliver
from ordinis.alerts.outbox import hand_over
from ordinis.alerts.upkeep import tell_of_channels


def tell() -> None:
    """Puts what is due into the outbox and sends it. Without a channel alerts stay here."""
    configuration = configured()
    tell_of_channels(configuration)
    hand_over(configuration)
    deliver(configuration)
