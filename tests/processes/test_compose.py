"""docker-compose.yml says what Docker accepts, holds no secret, and its commands run as they stand.

Docker itself is not needed: every command is run here, against PostgreSQL, a server that speaks
Redis' protocol, and the simulator in the broker's place.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from ordinis.database.embedded import EmbeddedServer
from tests.processes.conftest import PROJECT, Command, Desk
from tests.waiting import until

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
LASTING = [name for name, service in OURS.items() if service["restart"] != "no"]

# The keys of the Compose Specification that this project has a use for.
KNOWN = {
    "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init",
    "ports", "restart", "security_opt", "shm_size", "stop_grace_period", "volumes",
}  # fmt: skip
HEALTH = {"test", "interval", "timeout", "start_period", "retries"}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")


def test_the_file_has_the_services_and_only_known_keys() -> None:
    assert {name for name in COMPOSE if not name.startswith("x-")} == {"services", "volumes"}
    assert set(SERVICES) == {"web", "listen", "worker", "beat", "migrate", "postgres", "redis"}
    for service in SERVICES.values():
        assert set(service) <= KNOWN
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_restarted_checked_and_pinned(name: str) -> None:
    service = SERVICES[name]

    assert re.fullmatch(r"[a-z]+:\d+\.\d[\w.-]*", service["image"])
    assert isinstance(service.get("command", []), list)
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert set(service["healthcheck"]) == HEALTH
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(
        re.fullmatch(r"\d+s", service["healthcheck"][key]) for key in HEALTH - {"test", "retries"}
    )


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_exists_and_can_happen(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how["condition"] in CONDITIONS
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_stands_in_the_file(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("KEY|SECRET|PASSWORD|TOKEN", variable):
            found = VARIABLE.fullmatch(value)
            assert found, variable
            assert found[2] == ":?", f"{variable} must have no default"
            assert found[3], f"{variable} must say what is missing"
        assert not re.search(r"://[^:/@${}]+:[^$][^@]*@", value), variable


@pytest.mark.parametrize("name", OURS)
def test_the_commands_are_those_of_this_machine(name: str) -> None:
    known = subprocess.run(
        [sys.executable, "manage.py", OURS[name]["command"][2], "--help"],
        cwd=PROJECT, capture_output=True, check=False,
    )  # fmt: skip

    assert OURS[name]["command"][:2] == ["python", "manage.py"]
    assert known.returncode == 0


def test_the_image_is_built_from_pinned_files_for_an_ordinary_user() -> None:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))

    assert "--require-hashes -r requirements-prod.lock" in text
    assert re.search(r"^FROM python:\d+\.\d+-slim-\w+$", text, re.M)
    assert re.search(r"^USER ordinis$", text, re.M)
    assert not re.search(r"^(COPY|ADD) \.", text, re.M), "a whole folder may hold secrets"
    for source in re.findall(r"^COPY (\S+) ", text, re.M):
        assert (PROJECT / source).exists()


@pytest.fixture
def composed(desk: Desk, redis_url: str) -> Iterator[Desk]:
    """A desk with the environment of the file, its three servers being local ones."""
    server = EmbeddedServer(desk.folder / "server")
    host = quote(server.ensure("ordinis"), safe="")
    given = {"SECRET_KEY": "k" * 50, "POSTGRES_PASSWORD": "x", "APCA_API_BASE_URL": ""}
    given |= {"APCA_API_KEY_ID": "key", "APCA_API_SECRET_KEY": "secret"}

    def value(found: re.Match[str]) -> str:
        name, kind, text = found.groups()
        return given.get(name, text if kind == ":-" else "")

    simulator = desk.start("simulator")
    simulator.says("listens on")
    desk.environment |= {
        name: VARIABLE.sub(value, text) for name, text in OURS["web"]["environment"].items()
    }
    desk.environment |= {
        "DATABASE_URL": f"postgres://postgres@{host}/ordinis",
        "REDIS_URL": redis_url,
        "APCA_API_BASE_URL": f"http://127.0.0.1:{desk.simulator_port}",
        "PORT": str(desk.port),
    }
    yield desk
    desk.clear()
    server.release(seconds=5)


def test_every_service_runs_and_is_found_healthy(composed: Desk) -> None:
    def arguments(command: list[str]) -> list[str]:
        return command[command.index("manage.py") + 1 :]

    assert composed.run(*arguments(OURS["migrate"]["command"])).returncode == 0
    assert composed.run("create_token", "--strategy", "rsi").returncode == 0

    running: dict[str, Command] = {
        name: composed.start(*arguments(OURS[name]["command"])) for name in LASTING
    }

    waiting = set(LASTING)

    def all_healthy() -> bool:
        for name in sorted(waiting):
            check = composed.run(*arguments(OURS[name]["healthcheck"]["test"]))
            if check.returncode == 0:
                waiting.discard(name)
        return not waiting

    try:
        until(all_healthy, seconds=30)
    except AssertionError:
        raise AssertionError({name: running[name].said for name in waiting}) from None
    for name, command in running.items():
        assert command.process.poll() is None, (name, command.said)
        command.process.terminate()
    for command in running.values():
        command.process.wait(timeout=10)
