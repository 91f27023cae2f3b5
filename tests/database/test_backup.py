"""A backup is a whole dump under a finished name, and the newest ten are kept."""

import stat
import subprocess
from pathlib import Path

import pytest
from django.db import connection

from ordinis.database import embedded
from ordinis.database.backup import KEPT, NoBackup, backup

pytestmark = pytest.mark.django_db


def contents(dump: Path) -> str:
    return subprocess.run(
        [embedded.program_folder() / "pg_restore", "--list", dump],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_backup_holds_the_tables_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    made = backup(tmp_path / "backups")

    assert "django_migrations" in contents(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_only_the_newest_ten_are_kept(tmp_path: Path) -> None:
    older = [tmp_path / f"ordinis-2020010{day}T000000.000000Z.dump" for day in range(1, 10)]
    for file in older:
        file.touch()

    made = [backup(tmp_path), backup(tmp_path)]

    assert sorted(tmp_path.iterdir()) == [*older[1:], *made]
    assert len(older[1:] + made) == KEPT


def test_a_failed_backup_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "NAME", "not_there")

    with pytest.raises(NoBackup, match="not_there"):
        backup(tmp_path)

    assert list(tmp_path.iterdir()) == []
