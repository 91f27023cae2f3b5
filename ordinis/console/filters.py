"""Filters of lists that stay fast on long tables: none asks the table for its distinct values."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest

from ordinis.accounts.models import BrokerAccount
from ordinis.console.days import start_of_day
from reconciliation.models import Correction


class AccountFilter(admin.SimpleListFilter):
    """One account at a time, the first unless another is chosen: its index answers the list."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(pk), name) for pk, name in BrokerAccount.objects.values_list("pk", "name")]

    def has_output(self) -> bool:
        return len(self.lookup_choices) > 1

    def _chosen(self) -> str | None:
        keys = [str(key) for key, _ in self.lookup_choices]
        value = self.value()
        return value if value in keys else keys[0] if keys else None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = self._chosen()
        return queryset if chosen is None else queryset.filter(account_id=int(chosen))

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for key, name in self.lookup_choices:
            yield {
                "selected": str(key) == self._chosen(),
                "query_string": changelist.get_query_string({"account": key}),
                "display": name,
            }


class InputFilter(admin.SimpleListFilter):
    """A filter that is typed in, beside the search."""

    template = "admin/input_filter.html"
    input_type = "text"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "")]  # Django hides a filter without choices

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield {
            "name": self.parameter_name,
            "type": self.input_type,
            "value": self.value() or "",
            "others": [
                (name, value)
                for name, value in changelist.params.items()
                if name != self.parameter_name
            ],
            "without": changelist.get_query_string(remove=[str(self.parameter_name)]),
        }


class SymbolFilter(InputFilter):
    title = "symbol"
    parameter_name = "symbol"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        symbol = (self.value() or "").strip().upper()
        return queryset.filter(symbol=symbol) if symbol else queryset


class DayFilter(InputFilter):
    """An exchange day of `moment_field`."""

    title = "day"
    parameter_name = "day"
    input_type = "date"
    moment_field = "created_at"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            day = date.fromisoformat(self.value() or "")
        except ValueError:
            return queryset
        return queryset.filter(
            **{
                f"{self.moment_field}__gte": start_of_day(day),
                f"{self.moment_field}__lt": start_of_day(day + timedelta(days=1)),
            }
        )


class ChoiceFilter(admin.SimpleListFilter):
    """Links; the first choice holds unless another is chosen, and there is no other 'all'."""

    options: tuple[tuple[str, str], ...] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> tuple[tuple[str, str], ...]:
        return self.options

    def chosen(self) -> str:
        value = self.value()
        return value if value in dict(self.options) else self.options[0][0]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for key, words in self.options:
            yield {
                "selected": key == self.chosen(),
                "query_string": changelist.get_query_string({str(self.parameter_name): key}),
                "display": words,
            }


class EndedFilter(ChoiceFilter):
    """What stands now, unless what is over is asked for."""

    title = "state"
    parameter_name = "state"
    options = (("open", "Open"), ("ended", "Over"), ("all", "All"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.chosen() == "all":
            return queryset
        return queryset.filter(ended_at__isnull=self.chosen() == "open")


class WaitingFilter(ChoiceFilter):
    """Corrections that wait for a decision, unless the others are asked for."""

    title = "state"
    parameter_name = "state"
    options = (("waiting", "Waiting"), ("ended", "Decided or ended"), ("all", "All"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.chosen() == "all":
            return queryset
        waiting = queryset.filter(status=Correction.Status.PROPOSED)
        return waiting if self.chosen() == "waiting" else queryset.exclude(pk__in=waiting)
