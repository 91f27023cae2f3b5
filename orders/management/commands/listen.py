"""`listen`: follows the broker's stream until it is stopped."""

import asyncio
import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from orders.stream import Consumer
from ordinis.accounts.models import BrokerAccount
from ordinis.alerts.silence import watch_worker
from ordinis.broker.alpaca_stream import KeysRefused
from ordinis.broker.errors import BrokerRefused
from ordinis.broker.registry import credentials


class Command(BaseCommand):
    help = "Follow the broker's stream of order updates. A second one waits to take over."

    def handle(self, *args: Any, **options: Any) -> None:
        account = BrokerAccount.served().first()
        if account is None:
            raise CommandError("There is no account yet: run manage.py start, or create_token.")
        threading.Thread(
            target=watch_worker, args=(threading.Event(),), name="worker watch", daemon=True
        ).start()
        try:
            key_id, secret_key = credentials()
            consumer = Consumer(account, key_id=key_id, secret_key=secret_key)
            asyncio.run(_until_signalled(consumer))
        except (KeysRefused, BrokerRefused) as error:
            raise CommandError(str(error)) from error


async def _until_signalled(consumer: Consumer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await consumer.run(stop)
