"""A child's log is bounded while the child goes on writing to it."""

from pathlib import Path

import pytest

from ordinis import supervisor


def test_a_long_log_is_begun_anew_under_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 20)
    log = tmp_path / "web.log"
    with log.open("ab", buffering=0) as written:
        written.write(b"the first twenty-one.\n")
        supervisor.keep_bounded(log)
        written.write(b"then this\n")
        supervisor.keep_bounded(log)

    assert log.read_text() == "then this\n"
    assert (tmp_path / "web.log.1").read_text() == "the first twenty-one.\n"
