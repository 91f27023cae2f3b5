"""`manage.py start`: one command brings everything up, keeps it up, and takes all of it down."""

import contextlib
import signal
import socket
import time
import urllib.request

import psutil

from tests.processes.conftest import Command, Desk
from tests.waiting import until


def started(desk: Desk) -> Command:
    command = desk.start("start")
    command.says("Ctrl-C ends all of it")
    return command


def healthy(port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer,
    ):
        return bool(answer.status == 200)
    return False


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_one_command_runs_everything_and_leaves_nothing(desk: Desk) -> None:
    command = started(desk)

    assert f"http://127.0.0.1:{desk.port}/" in command.said
    assert f"http://127.0.0.1:{desk.simulator_port}/sim/" in command.said
    command.says(r"operator \w+, password \S+ \(shown only now\)")
    for name in ("simulator", "web", "listen", "clock", "worker", "demo_strategy"):
        assert desk.child(name), name
    with urllib.request.urlopen(f"http://127.0.0.1:{desk.port}/healthz") as answer:
        assert answer.status == 200
    until(lambda: desk.rows("SELECT 1 FROM ordinis_jobrun WHERE last_finished_at IS NOT NULL"))

    # One that hangs does not hold up the end.
    worker = desk.child("worker")
    assert worker
    worker.suspend()
    # A terminal's Ctrl-C reaches the supervisor alone: its children have sessions of their own.
    began = time.monotonic()
    assert command.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 5
    assert desk.processes() == []
    assert not (desk.var / "postgres/data/postmaster.pid").exists()


def test_a_killed_child_is_started_again_ever_more_slowly_and_reported(
    prepared_desk: Desk,
) -> None:
    desk = prepared_desk
    command = started(desk)
    first = desk.child("clock")
    assert first
    first.kill()

    command.says(r"clock was ended by SIGKILL; it is started again in 0\.5 s")
    second = until(lambda: desk.child("clock"))
    assert second
    assert second != first
    second.kill()
    command.says(r"clock was ended by SIGKILL; it is started again in 1 s")
    until(lambda: desk.child("clock"))

    # One console for one folder: a second start in it changes nothing.
    refused = desk.run("start")
    assert refused.returncode == 1
    assert "is running in this folder already" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert listening(desk.port)

    began = time.monotonic()
    assert command.end() == 0
    assert time.monotonic() - began < 5
    assert desk.processes() == []


def test_a_killed_start_takes_its_children_along_and_can_be_repeated(
    prepared_desk: Desk,
) -> None:
    desk = prepared_desk
    command = started(desk)

    command.process.kill()
    again = desk.start("start")

    again.says("Ctrl-C ends all of it")
    assert "shown only now" not in again.said
    assert all(
        process.create_time() >= again.process.create_time()
        for process in desk.processes()
        if any("ordinis.supervised" in part for part in process.cmdline())
    )
    assert again.end() == 0
    assert desk.processes() == []


def test_a_taken_port_is_named_before_anything_is_started(desk: Desk) -> None:
    for port, variable in ((desk.port, "PORT"), (desk.simulator_port, "ORDINIS_SIMULATOR_PORT")):
        with socket.create_server(("127.0.0.1", port)):
            refused = desk.run("start")

        assert refused.returncode == 1
        assert f"Port {port} is taken" in refused.stderr
        assert f"{variable}={port + 10}" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (desk.var / "postgres").exists()


def test_the_web_command_alone_names_a_taken_port(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", desk.port)):
        refused = desk.run("web")

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"CommandError: Port {desk.port}")


def test_pending_migrations_are_applied_after_a_backup(prepared_desk: Desk) -> None:
    desk = prepared_desk
    assert desk.run("migrate", "-v0", "ordinis", "zero").returncode == 0

    command = desk.start("start")

    command.says(r"backed up to .*\.dump.*\n.*Preparing the database \(1 migrations\)")
    assert len(list((desk.var / "backups").glob("*.dump"))) == 1
    # Ended in the midst of it, it leaves nothing either.
    assert command.end() == 0
    assert desk.processes() == []


def test_a_killed_granian_worker_is_replaced(prepared_desk: Desk) -> None:
    desk = prepared_desk
    command = desk.start("web")
    until(lambda: listening(desk.port))
    web = command.process

    def workers() -> list[psutil.Process]:
        found = []
        for child in web.children():
            with contextlib.suppress(psutil.Error):  # one that just died
                if child.cmdline() == web.cmdline():
                    found.append(child)
        return found

    before = until(lambda: len(workers()) == 2 and workers())
    assert before

    before[0].kill()

    until(lambda: before[0] not in workers() and len(workers()) == 2)
    until(lambda: healthy(desk.port))  # a worker listens a moment after it is there
    command.end()
