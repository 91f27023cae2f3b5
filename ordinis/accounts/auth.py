"""Bearer tokens and their scopes. A session cookie never grants API rights."""

from django.http import HttpRequest
from ninja.security import HttpBearer

from ordinis.accounts.models import ApiToken, Strategy
from ordinis.http import Problem


class TokenRequest(HttpRequest):
    """A request that passed `Scope`: ninja puts the token on it."""

    auth: ApiToken


class Scope(HttpBearer):
    """Lets a request through whose token is valid and carries a scope."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def __call__(self, request: HttpRequest) -> ApiToken:
        token = super().__call__(request)
        if token is None:
            raise Problem(
                401,
                "unauthorized",
                "Send a valid token: Authorization: Bearer <token>. "
                "`manage.py create_token` makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        assert isinstance(token, ApiToken)
        if self.scope not in token.scopes:
            raise Problem(
                403,
                "missing_scope",
                f"This token lacks the scope {self.scope!r}. Make one that carries it.",
            )
        return token

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        return ApiToken.authenticate(token)


def strategy_of(request: TokenRequest) -> Strategy:
    return request.auth.strategy


def may_operate(request: TokenRequest) -> bool:
    return "operate" in request.auth.scopes
