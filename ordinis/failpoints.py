"""Named points at which a test can kill the process, to see what is left (SPEC O3).

Off unless ORDINIS_FAILPOINT names one, and never on outside the simulator: then a call is one
comparison. `ORDINIS_FAILPOINT=send.answered:2` kills at the second time that point is reached.
"""

import os
import signal
import threading

_name, _, _times = os.environ.get("ORDINIS_FAILPOINT", "").partition(":")
if os.environ.get("ORDINIS_BROKER", "simulator") != "simulator":
    _name = ""
_left = int(_times or 1)
_guard = threading.Lock()


def failpoint(name: str) -> None:
    """Ends the process here, as `kill -9` would, when this point was asked for."""
    if not _name or name != _name:
        return
    global _left
    with _guard:
        _left -= 1
        if _left == 0:
            _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
