"""How requests reach Alpaca: alpaca-py's client with everything unsafe switched off.

Sets what the library lacks (timeouts, a bound on slow answers), observes the request budget, and
turns whatever goes wrong into the errors of `ordinis.broker.errors`. Retries reads and cancels;
an order POST is made once and never again by itself. Each attempt about orders is a line of the
order log.
"""

import itertools
import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import requests
import tenacity
from alpaca.common.exceptions import APIError
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError

from ordinis.broker import order_log
from ordinis.broker.budget import Budget, Priority, priority
from ordinis.broker.deadline import Pool, SecurePool, whole_by
from ordinis.broker.errors import (
    BrokerError,
    BrokerRefused,
    BrokerUnavailable,
    DuplicateClientOrderId,
    NotSent,
    OrderRefused,
    OutcomeUnknown,
)

T = TypeVar("T")
ATTEMPTS = 3
# A broker that asks us to wait longer than this is not waited for: the caller decides.
LONGEST_WAIT = 5.0
BACKOFF = 0.2  # seconds; doubled with each attempt
_LARGEST_ANSWER = 64 * 1024 * 1024  # bytes


class Transport:
    """One broker account's connection. Safe to share between threads: each gets a client of its
    own, since requests' sessions do not promise to be shared."""

    def __init__(
        self,
        *,
        url: str,
        key_id: str,
        secret_key: str,
        timeout: float,
        budget: Budget,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._url = url
        self._keys = (key_id, secret_key)
        self._attempts = attempts
        self._adapter: Callable[[], HTTPAdapter] = lambda: _Adapter(timeout, budget, self._local)
        self._local = threading.local()  # `.client`, and `.response` of the attempt under way
        self._account: dict[str, Any] = {}  # the latest figures read, for the order log

    def read(self, path: str, query: dict[str, Any] | None = None) -> Any:
        """The JSON under a path, retried. Raises BrokerUnavailable, NotSent or BrokerRefused."""
        answer = self._retried(lambda number: self._call("GET", path, query, number))
        if path == "/account":
            self._account = order_log.figures(answer)
        return answer

    def find(self, path: str, query: dict[str, Any] | None = None) -> Any | None:
        """As `read`; None when the broker itself says that there is none. A gateway's 404, which
        has no such words, proves nothing."""
        try:
            return self.read(path, query)
        except BrokerUnavailable as error:
            if _is_absence(error):
                return None
            raise

    def cancel(self, path: str) -> Any:
        """A DELETE, which may be repeated without harm. Raises as `read`, and OrderRefused."""

        def attempt(number: int) -> Any:
            with priority(Priority.CANCEL):
                return self._call("DELETE", path, None, number)

        return self._retried(attempt)

    def write(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """A request that must not be repeated, made once. Raises OrderRefused,
        DuplicateClientOrderId, NotSent or OutcomeUnknown."""
        call = order_log.Call(method=method, path=path, data=body, attempt=1)
        return self._logged(call, lambda: self._write(method, path, body))

    def _write(self, method: str, path: str, body: dict[str, Any]) -> Any:
        try:
            with priority(Priority.SUBMIT):
                client = self._client()
                answer = client.post(path, body) if method == "POST" else client.patch(path, body)
            if answer is None:
                raise OutcomeUnknown("The broker's answer is empty.")
            return answer
        except BrokerError:
            raise
        except APIError as error:
            raise _write_failure(error) from error
        except Exception as error:  # reset, timeout, an unparsable 200: it may have happened
            if _never_left(error):
                raise NotSent(_describe(error)) from error
            raise OutcomeUnknown(_describe(error)) from error

    def _call(self, method: str, path: str, query: dict[str, Any] | None, number: int) -> Any:
        call = order_log.Call(method=method, path=path, data=query or {}, attempt=number)
        return self._logged(call, lambda: self._read(method, path, query))

    def _read(self, method: str, path: str, query: dict[str, Any] | None) -> Any:
        try:
            client = self._client()
            if method == "DELETE":
                return client.delete(path)
            answer = client.get(path, query)
            if answer is None:  # an empty 200 is no answer, least of all "there is none"
                raise BrokerUnavailable("The broker's answer is empty.")
            return answer
        except BrokerError:
            raise
        except APIError as error:
            raise _failure(method, error) from error
        except Exception as error:  # whatever the library throws: there is no usable answer
            kind = NotSent if _never_left(error) else BrokerUnavailable
            raise kind(_describe(error)) from error

    def _logged(self, call: order_log.Call, ask: Callable[[], Any]) -> Any:
        """What `ask` returns or raises, with its line in the order log."""
        try:
            answer = ask()
        except BaseException as error:
            kind, came = _classification(error), self._what_came()
            ending = order_log.Ending(error=error, classification=kind, response=came)
            order_log.write(call, ending, self._account)
            raise
        ending = order_log.Ending(answer=answer, response=self._what_came())
        order_log.write(call, ending, self._account)
        return answer

    def _what_came(self) -> requests.Response | None:
        """The answer to this thread's latest attempt, once: it may be large."""
        response, self._local.response = getattr(self._local, "response", None), None
        return response

    def _retried(self, attempt: Callable[[int], T]) -> T:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=_wait,
            retry=tenacity.retry_if_exception(_is_worth_a_retry),
            reraise=True,
        )
        numbers = itertools.count(1)
        return retrying(lambda: attempt(next(numbers)))

    def _client(self) -> TradingClient:
        client = getattr(self._local, "client", None)
        if client is None:
            client = TradingClient(*self._keys, raw_data=True, url_override=self._url)
            client._retry = 0  # it would send an order again on 429 and 504
            session: requests.Session = client._session
            session.trust_env = False  # a proxy would capture even loopback
            adapter = self._adapter()
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            self._local.client = client
        return client


class _Adapter(HTTPAdapter):
    """Bounds every request in time and size, and keeps the budget."""

    def __init__(self, seconds: float, budget: Budget, under_way: threading.local) -> None:
        super().__init__(pool_connections=1, pool_maxsize=2)
        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        self._seconds = seconds
        self._budget = budget
        self._under_way = under_way  # gets what came, also when the rest does not

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        self._budget.take()
        deadline = time.monotonic() + self._seconds
        kwargs["timeout"] = (min(self._seconds, 5), self._seconds)
        kwargs["stream"] = True
        with whole_by(deadline):
            response = super().send(request, **kwargs)
            self._under_way.response = response
            self._budget.note(response.headers)
            _read_body(response, deadline)
        response.encoding = "utf-8"  # else it is guessed from every byte of a long list
        return response


def _read_body(response: requests.Response, deadline: float) -> None:
    """The whole body by the deadline: a socket timeout alone is renewed by every dripped byte.
    What came is kept also when it is not the whole, for the order log."""
    parts: list[bytes] = []
    size = 0
    try:
        while part := response.raw.read1(65_536, decode_content=True):
            parts.append(part)
            size += len(part)
            if time.monotonic() > deadline:
                raise requests.ReadTimeout("the answer came too slowly")
            if size > _LARGEST_ANSWER:
                raise requests.ConnectionError("the answer is too large")
    except HTTPError as error:
        raise requests.ConnectionError(error) from error
    except BaseException:
        response.close()
        raise
    finally:
        response._content = b"".join(parts)
    response.raw.release_conn()


def path_part(text: str) -> str:
    """Text from outside as one part of a path."""
    return quote(text, safe="")


# --- retries --------------------------------------------------------------------------------


def _is_worth_a_retry(error: BaseException) -> bool:
    if not isinstance(error, BrokerUnavailable) or not _is_transient(error):
        return False
    return error.retry_after is None or error.retry_after <= LONGEST_WAIT


def _is_transient(error: BrokerError) -> bool:
    """Whether the same request may succeed in a moment, whoever may make it."""
    if not error.retriable or _is_absence(error):
        return False
    if error.retry_after is not None or error.status is None:
        return True
    return error.status == 429 or error.status >= 500


def _classification(error: BaseException) -> order_log.Classification:
    if not isinstance(error, BrokerError):
        return "retriable"  # cut off by us, as by an ending process: it says nothing of the request
    if isinstance(error, BrokerUnavailable) and _is_absence(error):
        return "ok"
    return "retriable" if _is_transient(error) else "fatal"


def _wait(state: tenacity.RetryCallState) -> float:
    """What the broker asked for, else exponential with full jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, BrokerError) and error.retry_after is not None:
        return error.retry_after
    most: float = BACKOFF * 2**state.attempt_number
    return random.uniform(BACKOFF / 4, most)  # noqa: S311 spreads callers, keeps no secret


# --- what each failure proves ---------------------------------------------------------------


def _problem(error: APIError) -> tuple[str, dict[str, Any]]:
    """Message and what belongs to it; APIError's own properties raise on bodies that are not of
    Alpaca's form."""
    status = error.status_code
    response = error.response
    detail: dict[str, Any] = {
        "status": status,
        "retry_after": None if response is None else _retry_after(response),
    }
    try:
        body = json.loads(str(error))
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return f"The broker answered {status} without a readable reason.", detail
    detail["code"] = str(body.pop("code", ""))
    message = str(body.pop("message", f"The broker answered {status}."))
    detail["fields"] = body
    return message, detail


def _retry_after(response: requests.Response) -> float | None:
    """Seconds, from Retry-After, or on 429 from the window's reset."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdecimal():
        return float(text)
    reset = response.headers.get("X-RateLimit-Reset", "")
    if response.status_code == 429 and reset.isascii() and reset.isdecimal():
        return max(float(reset) - time.time(), 0.1)
    return None


def _failure(method: str, error: APIError) -> BrokerError:
    """Which proof an error answer to a GET or DELETE gives."""
    message, detail = _problem(error)
    status = detail["status"]
    if status == 401 or (status == 403 and not detail.get("code")):
        return BrokerRefused(
            f"The broker refuses our keys or permission ({message}). {BrokerRefused.advice}",
            **detail,
        )
    if method == "DELETE" and status in (403, 422) and str(detail.get("code", "")).isdigit():
        return OrderRefused(message, **detail)
    return BrokerUnavailable(message, **detail)


def _write_failure(error: APIError) -> BrokerError:
    """Which proof an error answer to a POST or PATCH gives (ALPACA.md 3 and 5.1)."""
    message, detail = _problem(error)
    status, code = detail["status"], str(detail.get("code", ""))
    if status == 422 and "client_order_id must be unique" in message:
        return DuplicateClientOrderId(message, **detail)
    # A numeric code marks the venue's own refusal; without one a gateway may have spoken.
    if status in (400, 403, 404, 422) and code.isdigit():
        return OrderRefused(message, **detail)
    # 401 and 429 as well: surely not taken, but a look-up is cheap and certain.
    return OutcomeUnknown(message, **detail)


def _is_absence(error: BrokerError) -> bool:
    message = error.message
    return error.status == 404 and ("not found" in message or "does not exist" in message)


def _never_left(error: Exception) -> bool:
    """Whether not even a connection was made, so that nothing can have been sent."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectionError) and isinstance(reason, NewConnectionError)


def _describe(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "The broker did not answer in time."
    if isinstance(error, requests.ConnectionError):
        return "The connection to the broker failed or was cut."
    return f"The broker's answer could not be read ({type(error).__name__})."
