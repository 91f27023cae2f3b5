"""What the environment may say of channels, and what is done with what it may not."""

import pytest
from django.conf import LazySettings

from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.channels import configured
from ordinis.alerts.jobs import tell
from ordinis.alerts.masking import mask_address
from ordinis.alerts.models import Alert
from ordinis.doctor import _alert_channels
from tests.alerts.conftest import Raise, Receiver

GOOD = "json://127.0.0.1:9/secret-path"


def test_commas_belong_to_an_address_unless_a_name_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    one = "mailto://ann:pass@example.com?to=a@example.com,b@example.com"
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"mail={one},ops_2={GOOD}")

    found = configured()

    assert not found.faults
    assert [(channel.name, channel.address) for channel in found.channels] == [
        ("mail", one),
        ("ops_2", GOOD),
    ]


@pytest.mark.parametrize(
    ("urls", "fault"),
    [
        (f"{GOOD}", "ORDINIS_ALERT_URLS"),
        (f"OPS={GOOD}", "ORDINIS_ALERT_URLS"),
        ("ops=nonsense://secret-path", "ops"),
        ("ops=", "ops"),
        (f"ops={GOOD},ops={GOOD}", "ops"),
        (f"mail={GOOD},Bad Name=foo://secret-path", "ORDINIS_ALERT_URLS"),
        (f"mail={GOOD}, foo://secret-path", "ORDINIS_ALERT_URLS"),
        (f"mail={GOOD},=foo://secret-path", "ORDINIS_ALERT_URLS"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, urls: str, fault: str
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"{urls},desk={GOOD}")

    found = configured()

    assert list(found.faults) == [fault]
    assert "secret-path" not in str(found.faults)
    assert "desk" in found.names
    assert ("mail" in found.names) is ("mail" in urls)


def test_every_entry_with_a_bad_name_is_named_and_the_good_ones_keep_their_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = "Bad Name=foo://secret-path,t0ken Of Ann=json://x"
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={GOOD},{bad}")

    found = configured()

    assert [(channel.name, channel.address) for channel in found.channels] == [("ops", GOOD)]
    said = found.faults["ORDINIS_ALERT_URLS"]
    assert "Entry 2 (Bad Name) of ORDINIS_ALERT_URLS" in said
    assert "Entry 3 of ORDINIS_ALERT_URLS" in said
    assert "t0ken" not in said


def test_a_rule_for_an_unknown_channel_says_that_there_is_none_of_this_name(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={GOOD}")
    settings.ALERT_RULES = "nobody:warning,ops:critical,ops:loud"

    said = configured().faults["ORDINIS_ALERT_RULES"]

    assert (
        "Entry 1 of ORDINIS_ALERT_RULES is for the channel nobody, and ORDINIS_ALERT_URLS has no "
        "channel of this name; it has ops."
    ) in said
    assert "Entry 3 of ORDINIS_ALERT_RULES can't be used." in said


def test_a_rule_for_a_channel_whose_address_cannot_be_used_is_no_fault_of_the_rules(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", "ops=nonsense://secret-path")
    settings.ALERT_RULES = "ops:critical"

    assert list(configured().faults) == ["ops"]


@pytest.mark.parametrize(
    "rules", ["ops", "ops:loud", "ops:warning:", "ops:warning@", "other:warning", ":critical"]
)
def test_a_rule_that_cannot_be_read_is_said_and_the_channel_hears_everything(
    monkeypatch: pytest.MonkeyPatch, settings: LazySettings, rules: str
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={GOOD}")
    settings.ALERT_RULES = rules

    found = configured()

    assert list(found.faults) == ["ORDINIS_ALERT_RULES"]
    assert found.channels[0].hears(Alert(code="any", severity="warning"))


@pytest.mark.parametrize(
    ("rules", "code", "severity", "of", "hears"),
    [
        ("", "books_old", "warning", "main", True),
        ("ops:critical", "books_old", "warning", "main", False),
        ("ops:critical", "books_old", "critical", "main", True),
        ("ops:warning:break_|books_", "books_old", "warning", "main", True),
        ("ops:warning:break_|books_", "stream_down", "critical", "main", False),
        ("ops:warning@main|second", "books_old", "warning", "main", True),
        ("ops:warning@second", "books_old", "warning", "main", False),
        ("ops:warning@second", "process_silent", "critical", None, True),
        ("ops:critical, ops:warning:books_@main", "books_old", "warning", "main", True),
        ("ops:warning", "alert_channel_dead", "critical", None, True),
    ],
)
def test_a_channel_hears_what_one_of_its_rules_covers(
    monkeypatch: pytest.MonkeyPatch,
    settings: LazySettings,
    rules: str,
    code: str,
    severity: str,
    of: str | None,
    hears: bool,
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={GOOD}")
    settings.ALERT_RULES = rules
    account = BrokerAccount(name=of) if of else None
    alert = Alert(code=code, severity=severity, account=account, subject="mail")

    found = configured()

    assert not found.faults
    assert found.channels[0].hears(alert) is hears


@pytest.mark.django_db(transaction=True)
def test_a_bad_address_is_an_alert_on_the_channels_that_work_until_it_is_mended(
    ops: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={ops.address},mail=nonsense://secret-path")
    tell()
    tell()

    assert ops.titles == ["SIMULATED · To act on: Alert channel or rule unusable"]
    assert "channel mail" in ops.last
    assert "secret-path" not in ops.last
    finding = _alert_channels()
    assert finding.status == "fail"
    assert "secret-path" not in str(finding)

    monkeypatch.setenv("ORDINIS_ALERT_URLS", f"ops={ops.address}")
    tell()

    assert ops.titles[-1] == "SIMULATED · Over: Alert channel or rule unusable"
    assert _alert_channels().status == "ok"


@pytest.mark.django_db(transaction=True)
def test_the_doctor_says_how_each_channel_fares(ops: Receiver, problem: Raise) -> None:
    assert "nothing was sent yet" in _alert_channels().message
    problem()
    tell()
    assert "ops: last worked on" in _alert_channels().message

    ops.status = 500
    problem("books_old")
    tell()

    finding = _alert_channels()
    assert finding.status == "warning"
    assert "ops: failures in a row: 1, last worked on" in finding.message
    assert "hunter22" not in str(finding)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (
            "json://ann:pw@host.example/a/long-token?key=another-one",
            "pw at long-token, another-one",
        ),
        ("discord://1234567890/AbCdEfGh", "POST /1234567890/abcdefgh refused"),
        ("mailto://ann%40x:p%2Fword7@example.com", "p/word7 and p%2Fword7 refused, ann@x"),
        ("not an address at all", "can't parse not an address at all"),
    ],
)
def test_every_part_of_an_address_is_blotted_out(address: str, text: str) -> None:
    masked = mask_address(text, address)

    for part in ("pw", "long-token", "another-one", "1234567890", "bcdef", "word7", "ann@x"):
        assert part not in masked.lower()
    assert "•••" in masked
