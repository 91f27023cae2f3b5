"""Has an act of a person killed at a failpoint, as `kill -9` does."""

import signal

from tests import other_process


def killed(act: str, key: int, *, broker: str, at: str) -> bool:
    """Whether the process was killed there; False when it never came to that point."""
    process = other_process.start(
        "tests.reconciliation.acting", act, f"{key}", broker=broker, ORDINIS_FAILPOINT=at
    )
    try:
        process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode == -signal.SIGKILL
