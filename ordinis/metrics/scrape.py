"""What the parts of a scrape share: the moment, the accounts, and how a family is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time

from prometheus_client.core import GaugeMetricFamily

from ordinis.accounts.models import BrokerAccount
from risk.exchange import NEW_YORK
from risk.figures import database_now


@dataclass(frozen=True, slots=True)
class Scrape:
    """One scrape: when, by the database's clock, and of which accounts."""

    at: datetime
    accounts: tuple[BrokerAccount, ...]

    @classmethod
    def now(cls) -> "Scrape":
        return cls(database_now(), tuple(BrokerAccount.served()))

    @property
    def keys(self) -> list[int]:
        return [account.pk for account in self.accounts]

    @property
    def today(self) -> datetime:
        """Midnight of the exchange's day."""
        return datetime.combine(self.at.astimezone(NEW_YORK), time.min, NEW_YORK).astimezone(UTC)

    def age(self, moment: datetime) -> float:
        return max((self.at - moment).total_seconds(), 0.0)


def gauge(name: str, words: str, labels: Sequence[str] = ("account",)) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"ordinis_{name}", words, labels=labels)
