"""Who may call the API: tokens, their scopes and their end."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from ordinis.accounts.models import ApiToken, Strategy
from tests.conftest import Api

pytestmark = pytest.mark.django_db


def _get(token: str, path: str = "/orders") -> Any:
    return Api(token).get(path)


def test_a_token_is_stored_only_as_a_hash_and_its_use_is_noted(strategy: Strategy) -> None:
    token, secret = ApiToken.issue(strategy, ("read",))

    assert _get(secret).status_code == 200
    token.refresh_from_db()
    assert token.last_used_at is not None
    assert secret not in str(ApiToken.objects.values_list())


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ord_nonsense", "Basic abc"])
def test_no_or_an_unknown_token_is_401(db: None, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}

    answer = Client().get("/api/v1/orders", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer["Content-Type"] == "application/problem+json"


def test_a_revoked_and_an_expired_token_are_401(strategy: Strategy) -> None:
    revoked, first = ApiToken.issue(strategy, ("read",))
    revoked.revoke()
    past = datetime.now(UTC) - timedelta(seconds=1)
    _, second = ApiToken.issue(strategy, ("read",), past)

    assert [_get(first).status_code, _get(second).status_code] == [401, 401]


@pytest.mark.parametrize(
    ("scopes", "method", "path"),
    [
        (("trade",), "get", "/orders"),
        (("read",), "post", "/orders"),
        (("read", "trade"), "post", "/reconciliation/run"),
    ],
)
def test_a_missing_scope_is_403(
    strategy: Strategy, scopes: tuple[str, ...], method: str, path: str
) -> None:
    _, secret = ApiToken.issue(strategy, scopes)

    answer = getattr(Api(secret), method)(path)

    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")


def test_a_console_session_grants_no_api_rights(db: None) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))

    assert client.get("/api/v1/orders").status_code == 401


def test_create_token_makes_strategy_and_account_and_prints_the_token_last(db: None) -> None:
    out = StringIO()

    call_command("create_token", strategy="momentum", scopes="read,trade", stdout=out)

    token = out.getvalue().strip().splitlines()[-1]
    assert _get(token).json() == {"items": [], "next": None}
    assert Strategy.objects.get().account.name == "main"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"scopes": "fly"}, "Unknown scope fly"), ({"strategy": "Has Space"}, "lower-case")],
)
def test_create_token_refuses_what_it_does_not_know(
    db: None, options: dict[str, str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("create_token", **{"strategy": "momentum", **options})

    assert ApiToken.objects.count() == 0
