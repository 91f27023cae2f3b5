"""The one place that knows Apprise: is an address usable, and does it take a message?

Apprise logs addresses and answers as it likes, so its own log goes nowhere: what it says comes
back from here with the address blotted out. Must never raise, and never touch the database.
"""

import logging
from typing import Literal

from apprise import Apprise, AppriseAsset, NotifyBase

from ordinis.alerts.masking import mask_address
from ordinis.logging import mask

Tone = Literal["failure", "warning", "success", "info"]
# Seconds for one connection and for one answer; a run as a whole has a bound of its own.
_CONNECT, _ANSWER = 4.0, 5.0
_LONGEST_ERROR = 300

_log = logging.getLogger("apprise")
_log.propagate = False
_log.addHandler(logging.NullHandler())

_ASSET = AppriseAsset(app_id="Ordinis", app_desc="Ordinis", app_url="", async_mode=False)


def is_usable(address: str) -> bool:
    return _service(address) is not None


def post(address: str, *, title: str, body: str, tone: Tone) -> str:
    """Sends one message; why it was not taken, or nothing when it was."""
    try:
        service = _service(address)
        if service is None:
            return "The address can't be used."
        sender = Apprise(asset=_ASSET)
        sender.add(service)
        result = sender.notify(
            title=title,
            body=body,
            notify_type=tone,
            body_format="text",
            log_level=logging.WARNING,
        )
        if result:
            return ""
        said = " ".join(entry.message for entry in result.logs()) or "The channel took nothing."
    except Exception as error:  # whatever a channel's client throws: it is that channel's failure
        said = f"{type(error).__name__}: {error}"
    return mask(mask_address(said, address))[:_LONGEST_ERROR]


def _service(address: str) -> NotifyBase | None:
    try:
        made = Apprise.instantiate(address, asset=_ASSET, suppress_exceptions=True)
    except Exception:  # says the address; that it is not usable is all there is to say
        return None
    if not isinstance(made, NotifyBase):
        return None
    made.socket_connect_timeout = min(made.socket_connect_timeout or _CONNECT, _CONNECT)
    made.socket_read_timeout = min(made.socket_read_timeout or _ANSWER, _ANSWER)
    return made
