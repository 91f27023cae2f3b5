"""What the first start needs: an account, an operator, and on the simulator a demo strategy.

Safe to run at every start: it only adds what is missing. Never prints; the caller shows the
password and the token, which can't be read again.
"""

import secrets
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now

from ordinis.accounts.models import SCOPES, ApiToken, BrokerAccount, Strategy

OPERATOR = "operator"
DEMO_STRATEGY = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """`password` only when the operator was made just now; `token` only on the simulator."""

    operator: str
    password: str | None
    token: str | None


def first_run() -> FirstRun:
    """Adds the account `main`, an operator and the demo strategy where they are missing."""
    with transaction.atomic():
        account = account_named("main")
        password = None
        if not User.objects.exists():
            password = secrets.token_urlsafe(12)
            User.objects.create_superuser(OPERATOR, password=password)
        token = _demo_token(account) if settings.ON_SIMULATOR else None
    operator = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    return FirstRun(
        operator=operator.get_username() if operator else "", password=password, token=token
    )


def account_named(name: str) -> BrokerAccount:
    """The account of this name at the configured broker, made where missing.

    Raises ValueError when the name belongs to an account at another broker.
    """
    account, _ = BrokerAccount.objects.get_or_create(
        name=name,
        defaults={"broker": settings.ORDINIS_BROKER, "mode": settings.BROKER_MODE},
    )
    if (account.broker, account.mode) != (settings.ORDINIS_BROKER, settings.BROKER_MODE):
        raise ValueError(
            f"The account {name!r} is at {account.broker} ({account.mode}), but Ordinis was "
            f"started for {settings.ORDINIS_BROKER} ({settings.BROKER_MODE}). Use another "
            "database (DATABASE_URL or ORDINIS_VAR_DIR) for another broker."
        )
    return account


def issue_token(
    *, strategy: str, account: str, scopes: tuple[str, ...] = ("read", "trade")
) -> tuple[ApiToken, str]:
    """A new token for a strategy, made with its account where they are missing."""
    with transaction.atomic():
        owner = account_named(account)
        row, _ = Strategy.objects.get_or_create(account=owner, name=strategy)
        row.full_clean()
        owner.full_clean()
        return ApiToken.issue(row, scopes)


def _demo_token(account: BrokerAccount) -> str:
    """A new token at each start, the earlier ones ended: a token can't be read again."""
    ApiToken.objects.filter(
        strategy__account=account, strategy__name=DEMO_STRATEGY, revoked_at=None
    ).update(revoked_at=Now())
    _, secret = issue_token(strategy=DEMO_STRATEGY, account=account.name, scopes=SCOPES)
    return secret
