"""A child's log is bounded while the child goes on writing to it; a file of JSON lines keeps each
line whole, whatever befalls the file."""

import json
import logging
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ordinis import supervisor
from ordinis.logging import JsonFormatter, LineFile, LineFormatter


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


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Its folder is not there yet."""
    return tmp_path / "log" / "lines.jsonl"


@pytest.fixture
def log(file: Path) -> Iterator[logging.Logger]:
    """Writes to the file and nowhere else."""
    logger = logging.Logger("lines")
    handler = LineFile(file)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    yield logger
    handler.close()


def _messages(file: Path) -> list[str]:
    lines = file.read_text().splitlines()
    return [json.loads(line)["message"] for line in lines if line.startswith('{"')]


def test_a_file_moved_away_is_begun_anew(log: logging.Logger, file: Path) -> None:
    log.info("first")
    open_files = psutil.Process().num_fds()
    file.rename(file.with_suffix(".1"))
    log.info("second")

    assert _messages(file.with_suffix(".1")) == ["first"]
    assert _messages(file) == ["second"]
    assert psutil.Process().num_fds() == open_files
    assert file.stat().st_mode & 0o777 == 0o600


def test_long_lines_of_many_writers_stay_whole(log: logging.Logger, file: Path) -> None:
    def write(number: int) -> None:
        # A handler of its own, as another process has: nothing is locked between the two.
        own = logging.Logger("lines")
        handler = LineFile(file)
        handler.setFormatter(JsonFormatter())
        own.addHandler(handler)
        for _ in range(20):
            own.info("%s", str(number) * 60_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))

    said = [str(number) * 60_000 for number in range(8) for _ in range(20)]
    assert sorted(_messages(file)) == said


def test_a_file_that_cannot_be_written_stops_nobody_and_is_said(
    log: logging.Logger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.write_text("a file in the folder's place")

    log.info("lost")

    assert "NotADirectoryError" in capsys.readouterr().err


def test_a_line_that_a_full_disk_cut_off_does_not_cost_the_next(
    log: logging.Logger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.info("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    huge = 2**40  # far above what anything else in this process writes
    with file.open("r+b") as hole:
        hole.truncate(huge - 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (huge, hard))
    try:
        log.info("cut off")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with file.open("rb") as written:
        written.seek(huge - 10)
        assert written.read() == b'{"time": "'
    assert "only 10 of" in capsys.readouterr().err

    log.info("after")
    with file.open("rb") as written:
        written.seek(huge)
        assert written.read().startswith(b'\n{"time"')


def test_a_line_break_in_a_value_is_no_line_break_in_the_log() -> None:
    record = logging.makeLogRecord(
        {"msg": "refused", "error": "a\nb", "detail": {"answer": "c\nd"}}
    )
    record.correlation_id = "-"

    for formatter in (LineFormatter(), JsonFormatter()):
        assert "\n" not in formatter.format(record)
