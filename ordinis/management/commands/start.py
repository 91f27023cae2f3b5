"""`manage.py start`: everything for the configured broker, in one command.

Sets up what is missing, starts the processes, says where they are, and ends all of them together.
The keeping alive is `ordinis.supervisor`'s.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection, connections
from django.db.migrations.executor import MigrationExecutor

from ordinis.accounts.setup import FirstRun, first_run
from ordinis.database import embedded, locks
from ordinis.database.backup import NoBackup, backup
from ordinis.supervisor import Program, Supervisor, is_free

HOST = "127.0.0.1"
# Children of a start that was killed end themselves within this time.
PREDECESSOR_ENDS_WITHIN = 6.0


class Command(BaseCommand):
    help = "Sets up and runs everything for the configured broker. Ctrl-C ends all of it."
    requires_system_checks: list[str] = []

    def handle(self, **_: object) -> None:
        ended = threading.Event()
        with _only_one() as after_a_kill:
            _check_ports(seconds=PREDECESSOR_ENDS_WITHIN if after_a_kill else 0)
            try:
                # Until something runs a signal just ends us.
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                made = self._set_up()
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, lambda *_: ended.set())
                self._run(made, ended)
            except KeyboardInterrupt:
                pass
            except (DatabaseError, ImproperlyConfigured) as error:
                raise CommandError(str(error)) from error
            finally:
                _let_go_of_the_database()

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()  # may be a file that somebody watches

    def _set_up(self) -> FirstRun:
        connection.ensure_connection()
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        if plan:
            if executor.loader.applied_migrations:
                self._back_up()
            self._say(f"Preparing the database ({len(plan)} migrations) …")
            call_command("migrate", interactive=False, verbosity=0)
        try:
            return first_run()
        except ValueError as error:
            raise CommandError(str(error)) from error

    def _back_up(self) -> None:
        try:
            self._say(f"The database was backed up to {_short(backup())}.")
        except NoBackup as error:
            # On a server of one's own a missing pg_dump must not keep the desk closed.
            if settings.DATABASE_URL:
                self._say(str(error))
            else:
                raise CommandError(f"{error} The migration was not begun.") from error

    def _run(self, made: FirstRun, ended: threading.Event) -> None:
        supervisor = Supervisor(log_folder=settings.LOG_DIR, say=self._report)
        shown = False
        try:
            if settings.ON_SIMULATOR:
                supervisor.start(Program("simulator", ["simulator"], stopped=2))
                self._wait_for("simulator", settings.SIMULATOR_PORT, supervisor, ended)
            for program in _programs():
                supervisor.start(program)
            self._wait_for("web", settings.PORT, supervisor, ended)
            if made.token and not ended.is_set():
                token = {"ORDINIS_TOKEN": made.token}
                supervisor.start(Program("demo_strategy", ["demo_strategy"], token, stopped=0))
            if not ended.is_set():
                self._show(made)
                shown = True
            supervisor.watch(ended)
            self._say("Stopping …")
        finally:
            supervisor.stop()
            if made.password and not shown:
                self._say(_operator(made))  # it can't be read again

    def _wait_for(
        self, name: str, port: int, supervisor: Supervisor, ended: threading.Event
    ) -> None:
        if supervisor.wait_for_port(name, port, seconds=30, ended=ended) or ended.is_set():
            return
        said = supervisor.last_words(name)
        raise CommandError(f"{name} does not start. Its last lines:\n{said}")

    def _report(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M:%S')} {text}")

    def _show(self, made: FirstRun) -> None:
        what = {
            "simulated": "on the simulator",
            "paper": "on paper",
            "live": "LIVE, WITH REAL MONEY",
        }
        lines = [
            "",
            f"Ordinis is running {what[settings.BROKER_MODE]}.",
            "",
            f"  Console    http://{HOST}:{settings.PORT}/",
            f"             {_operator(made)}",
        ]
        if settings.ON_SIMULATOR:
            lines += [
                f"  Simulator  {settings.BROKER_URL}/sim/",
                "             trade by hand here and watch the drift appear",
            ]
        lines += [f"  Logs       {_short(settings.LOG_DIR)}/", "", "Ctrl-C ends all of it.", ""]
        self._say("\n".join(lines))


def _operator(made: FirstRun) -> str:
    if made.password:
        return f"operator {made.operator}, password {made.password} (shown only now)"
    return f"operator {made.operator} (new password: manage.py changepassword {made.operator})"


def _programs() -> Iterator[Program]:
    # The web process ends first, so that no order comes in while the rest goes.
    yield Program("web", ["web"], stopped=0)
    for name in ("listen", "clock", "worker"):
        yield Program(name, [name], stopped=1)


@contextmanager
def _only_one() -> Iterator[bool]:
    """Holds the folder's start lock; tells whether its last holder was killed."""
    path = Path(settings.VAR_DIR) / "start.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = locks.open_lock(path)
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror}.") from error
    if not locks.take(lock):
        raise CommandError(
            f"Ordinis is running in this folder already ({path.read_text().strip()}). End that "
            "one first, or set ORDINIS_VAR_DIR and PORT for a second one."
        )
    after_a_kill = path.stat().st_size > 0
    path.write_text(f"process {os.getpid()}, port {settings.PORT}\n")
    try:
        yield after_a_kill
    finally:
        path.write_text("")
        os.close(lock)


def _check_ports(*, seconds: float) -> None:
    ports = {settings.PORT: "PORT"}
    if settings.ON_SIMULATOR:
        ports[settings.SIMULATOR_PORT] = "ORDINIS_SIMULATOR_PORT"
    deadline = time.monotonic() + seconds
    for port, variable in ports.items():
        while not is_free(HOST, port):
            if time.monotonic() >= deadline:
                raise CommandError(
                    f"Port {port} is taken by another program. Stop that, or choose another port: "
                    f"{variable}={port + 10} python manage.py start"
                )
            time.sleep(0.1)


def _let_go_of_the_database() -> None:
    connections.close_all()
    if not settings.DATABASE_URL:
        embedded.server().release(seconds=3)


def _short(path: Path) -> str:
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
