"""The channels people read, by name, and what each is to hear: read from the environment.

What can't be used is said and left out; the other channels go on. Addresses carry tokens: they
stay in this process's memory, and no text from here holds one.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from django.conf import settings

from ordinis.alerts.models import Alert, Severity
from ordinis.alerts.transport import is_usable

URLS, RULES = "ORDINIS_ALERT_URLS", "ORDINIS_ALERT_RULES"
_NAME = re.compile(r"[a-z0-9_-]{1,32}")
# Addresses may hold commas: only one before `name=`, before anything that is said to be the name of
# an address, or before an address without a name ends one; else a bad entry spoils the good one
# before it.
_SCHEME = r"\s*[A-Za-z][A-Za-z0-9+.-]*://"
_BETWEEN = re.compile(rf",(?=\s*[^,=/:?&\s]+=|[^,=/?&]*={_SCHEME}|{_SCHEME})")
# A name that can't be used is only repeated where it can't be a token.
_HARMLESS = re.compile(r"[A-Za-z][A-Za-z _-]{0,31}")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a channel hears: from this severity on, of these kinds and accounts (empty: all)."""

    severity: Severity = Severity.WARNING
    codes: tuple[str, ...] = ()
    """How the codes begin."""
    accounts: tuple[str, ...] = ()

    def covers(self, alert: Alert) -> bool:
        return (
            (self.severity == Severity.WARNING or alert.severity == Severity.CRITICAL)
            and (not self.codes or alert.code.startswith(self.codes))
            # What is of the whole installation concerns every account.
            and (not self.accounts or alert.account is None or alert.account.name in self.accounts)
        )


@dataclass(frozen=True, slots=True)
class Channel:
    """Where messages go."""

    name: str
    address: str = field(repr=False)
    rules: tuple[Rule, ...] = (Rule(),)

    def hears(self, alert: Alert) -> bool:
        # A dead channel can't tell of its own death.
        if alert.code == "alert_channel_dead" and alert.subject == self.name:
            return False
        return any(rule.covers(alert) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the environment asks for, as far as it can be used."""

    channels: tuple[Channel, ...]
    faults: dict[str, str]
    """What can't be used and why, by channel or variable; never with an address."""

    @property
    def names(self) -> list[str]:
        return [channel.name for channel in self.channels]


def configured() -> Configuration:
    """The channels of this process's environment."""
    return _read(os.environ.get(URLS, ""), settings.ALERT_RULES)


@lru_cache(maxsize=4)
def _read(urls: str, rules: str) -> Configuration:
    faults: dict[str, str] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    addresses: dict[str, str] = {}
    for number, entry in enumerate(_BETWEEN.split(urls.strip()) if urls.strip() else (), start=1):
        name, equals, address = (part.strip() for part in entry.partition("="))
        if not equals or not _NAME.fullmatch(name):
            called = f" ({name})" if equals and _HARMLESS.fullmatch(name) else ""
            wrong[URLS].append(
                f"Entry {number}{called} of {URLS} does not begin with a name that can be used. "
                "Write name=address, the name in lower-case letters, digits, - or _; several are "
                "separated by commas. Only this entry is left out."
            )
        elif name in addresses or name in faults:
            faults[name] = f"{URLS} has two channels named {name}. Give each its own name."
        elif not is_usable(address):
            faults[name] = (
                f"The address of the channel {name} in {URLS} can't be used. Write it as Apprise's "
                "documentation has it for that service, and start Ordinis again."
            )
        else:
            addresses[name] = address
    by_name: dict[str, list[Rule]] = {}
    for number, text in enumerate(filter(None, map(str.strip, rules.split(","))), start=1):
        name, rule = _rule(text)
        if rule is not None and _NAME.fullmatch(name) and name not in addresses | faults:
            wrong[RULES].append(
                f"Entry {number} of {RULES} is for the channel {name}, and {URLS} has no channel "
                f"of this name; it has {', '.join(addresses) or 'none that can be used'}. Correct "
                "the name, or give the channel an address."
            )
        elif rule is None or not _NAME.fullmatch(name):
            wrong[RULES].append(
                f"Entry {number} of {RULES} can't be used. Write channel:severity, with a channel "
                f"of {URLS} and warning or critical; then, if wanted, :break_|breaker_ for these "
                "kinds alone and @account for one account. Until then a channel whose rules can't "
                "be read hears everything."
            )
        if rule is not None:
            by_name.setdefault(name, []).append(rule)
        elif name in addresses:
            by_name.setdefault(name, []).append(Rule())
    faults |= {variable: " ".join(texts) for variable, texts in wrong.items()}
    return Configuration(
        tuple(
            Channel(name, address, tuple(by_name.get(name, (Rule(),))))
            for name, address in addresses.items()
        ),
        faults,
    )


def _rule(text: str) -> tuple[str, Rule | None]:
    """`channel:severity[:kind|kind][@account|account]`"""
    head, at, accounts = text.partition("@")
    name, _, rest = head.partition(":")
    severity, colon, codes = rest.partition(":")
    known = severity.strip() in Severity.values
    if not known or (at and not accounts.strip()) or (colon and not codes.strip()):
        return name.strip(), None
    rule = Rule(Severity(severity.strip()), tuple(_listed(codes)), tuple(_listed(accounts)))
    return name.strip(), rule


def _listed(text: str) -> Iterator[str]:
    return filter(None, map(str.strip, text.split("|")))
