"""A program in a process of its own, on the database and the simulator of its test."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from django.db import connection

PROJECT = Path(__file__).resolve().parent.parent


def start(module: str, *arguments: str, broker: str, **more: str) -> "subprocess.Popen[str]":
    """`python -m MODULE …`; its output can be read, its errors are this test's."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        env={**environment(broker=broker), **more},
        stdout=subprocess.PIPE,
        text=True,
    )


def environment(*, broker: str) -> dict[str, str]:
    """Of a process that works for this test."""
    return {
        **{name: value for name, value in os.environ.items() if name != "REDIS_URL"},
        "DJANGO_SETTINGS_MODULE": "ordinis.settings",
        "DATABASE_URL": _database_url(),
        "APCA_API_BASE_URL": broker,
        "ORDINIS_BROKER_TIMEOUT": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _database_url() -> str:
    with connection.cursor() as cursor:
        parameters = cursor.connection.info.get_parameters()
        host = cursor.connection.info.host
        port = cursor.connection.info.port
        password = cursor.connection.info.password
    user = quote(parameters["user"], safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"postgres://{user}@{quote(host, safe='')}:{port}/{quote(parameters['dbname'])}"
