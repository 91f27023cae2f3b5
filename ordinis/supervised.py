"""Runs one `manage.py` command as a child of `manage.py start`: `python -m ordinis.supervised web`.

The supervisor holds the writing end of a pipe. When it's gone, however it ended, the pipe ends,
and the command ends itself, and so does everything that it forked: nothing is left behind by a
killed supervisor. Must never know what the commands do.
"""

import contextlib
import os
import signal
import sys
import threading
import time

PIPE = "ORDINIS_SUPERVISOR_PIPE"
GRACE = 4.0  # seconds from the supervisor's end to the kill


def watch(pipe: int) -> None:
    """Ends this process and its forks when the pipe does."""
    os.set_inheritable(pipe, False)  # programs that we start are not the supervisor's children
    _start_thread(pipe, signal.SIGTERM)
    # A forked pool worker is ended by its parent. Asked at the same time, the two would wait
    # for each other; so a fork only waits for the kill.
    os.register_at_fork(after_in_child=lambda: _start_thread(pipe, None))


def _start_thread(pipe: int, ask: signal.Signals | None) -> None:
    threading.Thread(target=_wait, args=(pipe, ask), name="supervisor", daemon=True).start()


def _wait(pipe: int, ask: signal.Signals | None) -> None:
    with contextlib.suppress(OSError):  # a fork that closed everything it had
        os.read(pipe, 1)
        if ask is not None:
            os.kill(os.getpid(), ask)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
    watch(int(os.environ.pop(PIPE)))
    from django.core.management import execute_from_command_line

    sys.argv[0] = "manage.py"
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
