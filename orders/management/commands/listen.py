"""`listen`: follows the broker's stream until it is stopped."""

import asyncio
import queue
import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orders.stream import Reader
from ordinis.accounts.models import BrokerAccount
from ordinis.broker.alpaca_stream import KeysRefused, Message, TradeUpdates
from ordinis.broker.errors import BrokerRefused
from ordinis.broker.registry import credentials


class Command(BaseCommand):
    help = "Follow the broker's stream of order updates."

    def handle(self, *args: Any, **options: Any) -> None:
        account = BrokerAccount.served().first()
        if account is None:
            raise CommandError("There is no account yet: run manage.py start, or create_token.")
        messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        try:
            key_id, secret_key = credentials()
            stream = TradeUpdates(
                url=settings.BROKER_URL, key_id=key_id, secret_key=secret_key, messages=messages
            )
            Reader(account, messages).start()
            asyncio.run(_until_signalled(stream))
        except (KeysRefused, BrokerRefused) as error:
            raise CommandError(str(error)) from error


async def _until_signalled(stream: TradeUpdates) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stream.follow(stop)
