"""One server for all processes of a folder: started when needed, gone with its last user."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.database.conftest import House, kill_hard, nobody
from tests.waiting import until

NOW = "SELECT 1"


def test_two_processes_share_one_server_and_the_last_one_ends_it(house: House) -> None:
    first, second = house.user(), house.user()

    assert first.query(NOW) == "1"
    assert second.server_pid() == first.server_pid()

    first.end()
    assert second.query(NOW) == "1"

    second.end()
    until(house.is_empty)


def test_commits_are_durable_and_nothing_listens_on_the_network(house: House) -> None:
    user = house.user()

    assert user.query("SHOW fsync") == "on"
    assert user.query("SHOW synchronous_commit") == "on"
    assert user.query("SHOW listen_addresses") == ""
    assert int(user.query("SHOW max_connections")) == 200
    server = psutil.Process(user.server_pid())
    assert server.net_connections(kind="inet") == []


def test_nobody_else_on_the_machine_reaches_the_socket(house: House) -> None:
    user = house.user()

    folder = Path(user.query("SHOW unix_socket_directories").strip('"'))

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((house.var / "postgres/data").stat().st_mode) == 0o700


def test_a_killed_user_harms_nobody_and_no_longer_counts(house: House) -> None:
    killed, other = house.user(), house.user()
    assert killed.query(NOW) == "1"
    server = other.server_pid()

    killed.kill()

    assert other.query(NOW) == "1"
    assert other.server_pid() == server
    other.end()
    until(house.is_empty)


def test_after_all_users_were_killed_the_server_ends_and_the_next_one_starts_it(
    house: House,
) -> None:
    users = [house.user(), house.user()]
    for user in users:
        assert user.query(NOW) == "1"

    kill_hard(*(user.process.pid for user in users))

    until(house.is_empty)
    assert house.user().query(NOW) == "1"


def test_after_everything_was_killed_at_once_committed_rows_are_there(house: House) -> None:
    user = house.user()
    user.query("CREATE TABLE kept (number int)")
    assert user.query("INSERT INTO kept VALUES (42) RETURNING number") == "42"
    server = psutil.Process(user.server_pid())

    kill_hard(
        house.keeper_pid(), *(child.pid for child in server.children()), server.pid,
        user.process.pid,
    )  # fmt: skip

    assert (house.var / "postgres/data/postmaster.pid").exists()
    next_one = house.user()
    assert next_one.query("SELECT number FROM kept") == "42"
    next_one.end()
    until(house.is_empty)


def test_a_killed_server_is_started_by_the_next_connection(house: House) -> None:
    user = house.user()
    first = user.server_pid()

    kill_hard(first)

    until(lambda: "OperationalError" in user.query(NOW))
    user.tell("close")
    assert user.query(NOW) == "1"
    assert user.server_pid() != first


def test_a_killed_keeper_is_replaced_by_the_next_users(house: House) -> None:
    first = house.user()
    server = first.server_pid()
    kill_hard(house.keeper_pid())

    second = house.user()

    assert second.server_pid() == server
    first.end()
    second.end()
    until(house.is_empty)


def test_a_forked_child_holds_the_server_after_its_parent(house: House) -> None:
    parent = house.user()
    server = parent.server_pid()
    child = psutil.Process(int(parent.tell("fork")))

    parent.end()

    other = house.user()
    assert other.server_pid() == server
    other.end()
    assert psutil.pid_exists(server)
    child.kill()
    until(house.is_empty)


@pytest.mark.parametrize(
    "name", ['with space, comma and "quote"', "long-" + "x" * 120], ids=["odd", "long"]
)
def test_it_runs_in_a_folder_with_a_difficult_name(
    tmp_path: Path, house_at: Callable[[Path], House], name: str
) -> None:
    house = house_at(tmp_path / name)
    user = house.user()

    assert user.query(NOW) == "1"
    listening = Path(user.query("SHOW unix_socket_directories").strip('"'))

    user.end()
    until(house.is_empty)
    assert not (name.startswith("long") and listening.exists())


def test_a_missing_test_database_is_not_made_by_the_way(house: House) -> None:
    user = house.user()

    assert user.query("SELECT count(*) FROM pg_database WHERE datname = 'ordinis'") == "1"
    assert user.query("SELECT count(*) FROM pg_database WHERE datname LIKE 'test%'") == "0"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
def test_an_ordinary_user_runs_it_as_himself(
    open_folder: Path, house_at: Callable[[Path], House]
) -> None:
    var = open_folder / "var"
    var.mkdir()
    shutil.chown(var, nobody().pw_uid, nobody().pw_gid)
    house = house_at(var)
    user = house.user(ordinary=True)

    assert user.query(NOW) == "1"
    assert psutil.Process(user.server_pid()).uids().real == nobody().pw_uid
    # Root joins him, instead of taking the folder over.
    assert house.user().server_pid() == user.server_pid()


@needs_root
def test_root_runs_it_as_a_user_without_its_powers_where_the_folder_is_open(
    open_folder: Path, house_at: Callable[[Path], House]
) -> None:
    server = psutil.Process(house_at(open_folder / "var").user().server_pid())

    assert server.uids().real != 0
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status


@needs_root
def test_root_leaves_the_permissions_of_its_folders_alone(house: House) -> None:
    before = [folder.stat().st_mode for folder in house.var.parents]

    assert house.user().query(NOW) == "1"

    assert [folder.stat().st_mode for folder in house.var.parents] == before


def test_a_folder_that_cannot_be_written_is_named(
    open_folder: Path, house_at: Callable[[Path], House]
) -> None:
    (open_folder / "closed").mkdir(mode=0o500)
    user = house_at(open_folder / "closed/var").user(ordinary=os.geteuid() == 0)

    answer = user.query(NOW)

    assert answer.startswith("OperationalError: Ordinis can't use its database folder")
    assert str(open_folder / "closed/var/postgres") in answer
    assert "ORDINIS_VAR_DIR" in answer
    assert "DATABASE_URL" in answer


@needs_root
def test_a_folder_of_another_user_is_named_with_its_owner(
    open_folder: Path, house_at: Callable[[Path], House]
) -> None:
    house = house_at(open_folder / "var")
    first = house.user()
    assert first.query(NOW) == "1"
    first.end()
    until(house.is_empty)

    answer = house.user(ordinary=True).query(NOW)

    assert "Permission denied" in answer
    assert "nobody" in answer
