"""Every frame is a row, whatever it holds, and is forgotten only when it is done with."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orders import stream_store
from orders.models import StreamMessage
from ordinis.accounts.models import BrokerAccount
from tests.listening import frame

pytestmark = pytest.mark.django_db(transaction=True)
MakeOrder = Callable[..., dict[str, Any]]


def test_secrets_are_masked_in_what_is_stored_and_identifiers_are_not(
    account: BrokerAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "hush-hush")
    order = {"id": "o1", "client_order_id": "ord_1234567890", "note": ["ord_1234567890"]}
    for text in (json.dumps({"data": {"event": "hush-hush", "order": order}}), "hush-hush{"):
        stream_store.store(account.pk, [frame(text)], after_gap=False)

    readable, unreadable = StreamMessage.objects.order_by("id")

    assert readable.body["data"] == {
        "event": "•••",
        "order": {"id": "o1", "client_order_id": "ord_1234567890", "note": ["ord_•••"]},
    }
    assert unreadable.body == {"unreadable": "'•••{'"}


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04",
        '{"a": NaN, "b": 1e400000, "c": 0.1000000000000000000001}',
        r'{"stream": "a\u0000b\ud800", "data": []}',
        r'{"key\u0000": 1}',
        "[" * 100_000,
        '{"data": {"event_id": "' + "E" * 65 + '", "order": 7}}',
        "null",
    ],
)
def test_whatever_a_frame_holds_is_stored_and_so_is_its_neighbour(
    account: BrokerAccount, data: str | bytes
) -> None:
    stream_store.store(
        account.pk, [frame(data), frame('{"data":{"event_id":"E1"}}')], after_gap=False
    )

    odd, neighbour = StreamMessage.objects.order_by("id")

    assert odd.event_id is None
    assert odd.body != {}
    assert neighbour.event_id == "E1"


def test_characters_that_the_database_refuses_do_not_make_a_message_unreadable(
    account: BrokerAccount,
) -> None:
    stream_store.store(
        account.pk,
        [frame(r'{"data": {"event_id": "E1", "note": "a\u0000b\ud800"}}')],
        after_gap=False,
    )

    assert StreamMessage.objects.get(event_id="E1").body["data"]["note"] == "ab?"


def test_numbers_are_kept_to_the_last_digit(account: BrokerAccount) -> None:
    stream_store.store(account.pk, [frame('{"price": 0.1000000000000000000001}')], after_gap=False)

    assert StreamMessage.objects.get().body == {"price": "0.1000000000000000000001"}


def test_old_messages_are_forgotten_but_never_unprocessed_ones_nor_the_newest(
    account: BrokerAccount,
) -> None:
    now = datetime.now(UTC)
    old = now - timedelta(days=15)
    rows = [
        StreamMessage(
            account=account, event_id=f"E{n:03}", body={}, received_at=old, processed_at=old
        )
        for n in range(150)
    ]
    rows[7].processed_at = None
    rows[8].received_at = now - timedelta(days=13)
    StreamMessage.objects.bulk_create(rows)

    assert stream_store.forget(now) == 48

    left = StreamMessage.objects.order_by("event_id").values_list("event_id", flat=True)
    assert list(left)[:4] == ["E007", "E008", "E050", "E051"]
