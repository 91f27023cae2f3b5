"""Whether this process answers, and whether the whole is ready to trade.

`/healthz` asks nothing of anyone else. `/readyz` names what fails and what to do; it never says
ready in doubt.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from ordinis.accounts.models import BrokerAccount
from ordinis.models import Heartbeat
from reconciliation.run import latest_complete
from risk.figures import database_now
from risk.limits import in_force
from risk.models import RiskLimits

# Three missed signs of life, and a little.
_SILENT = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is not as it should be, in words."""

    check: str
    message: str


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    failures = list(check())
    return JsonResponse(
        {"ready": not failures, "failures": [asdict(failure) for failure in failures]},
        status=503 if failures else 200,
    )


def check() -> Iterator[Failure]:
    """What keeps Ordinis from being ready; nothing when all is well."""
    try:
        connection.ensure_connection()
        plan = MigrationExecutor(connection).loader.graph.leaf_nodes()
        pending = MigrationExecutor(connection).migration_plan(plan)
    except Error as error:
        yield Failure("database", f"The database does not answer: {error}")
        return
    if pending:
        yield Failure("migrations", "Migrations are pending: run manage.py migrate (or start).")
        return
    yield from processes()
    yield from books()


def processes() -> Iterator[Failure]:
    """The worker and the stream give a sign of life every few seconds while they do their work."""
    now = database_now()
    seen = dict(Heartbeat.objects.values_list("name", "last_seen_at"))
    for name, what in (("worker", "runs the periodic jobs"), ("listen", "follows the stream")):
        last = seen.get(name)
        if last is None or now - last > _SILENT:
            since = f"since {last:%H:%M:%S %Z}" if last else "yet"
            yield Failure(
                name,
                f"Nothing {what} {since}. Run manage.py start, or manage.py {name} on its own.",
            )


def books() -> Iterator[Failure]:
    """Every account that is watched was compared with the broker not long ago."""
    now = database_now()
    for account in BrokerAccount.served():
        if in_force(account.pk).reconcile_mode == RiskLimits.ReconcileMode.OFF:
            continue
        last = latest_complete(account.pk)
        if last is None or now - last > 3 * account.cadence:
            since = f"since {last:%H:%M:%S %Z}" if last else "yet"
            yield Failure(
                "broker_sync",
                f"Account {account.name} has had no complete comparison with the broker {since}. "
                "Check that clock and worker run, and that the broker answers (manage.py sync).",
            )
