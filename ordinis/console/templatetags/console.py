"""The console's components for templates: figures, differences, times, badges. Holds no rule."""

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django import template
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ordinis.console import text
from ordinis.logging import mask
from positions.models import LedgerEntry
from reconciliation.models import ReconciliationReport

register = template.Library()

register.filter("shares", text.shares)
register.filter("money", text.money)
register.filter("price", text.price)
register.filter("signed_shares", text.signed_shares)
register.filter("signed_money", text.signed_money)
register.filter("span", text.span)

_ORDER_CAUSE: Final = re.compile(r"(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")


@register.simple_tag
def difference(value: Decimal | None, unit: str = "shares") -> SafeString:
    """A signed difference; only one that is not zero stands out."""
    shown = text.signed_money(value) if unit == "money" else text.signed_shares(value)
    return format_html('<span class="{}">{}</span>', "n differs" if value else "n", shown)


@register.simple_tag
def moment(value: datetime | None, exact: bool = False) -> SafeString:
    """When something happened, in exchange time; hovering shows UTC as well."""
    if value is None:
        return format_html("{}", text.NONE)
    shown = text.moment(value, now=timezone.now(), exact=exact)
    return _time(value, shown)


@register.simple_tag
def age(value: datetime | None, ago: str = " ago") -> SafeString:
    """How long ago something happened; ticks in the browser."""
    if value is None:
        return format_html("{}", text.NONE)
    length = max(timezone.now() - value, timedelta(0))
    return format_html(
        '<time class="age" datetime="{}" title="{}" data-age="{}" data-after="{}">{}{}</time>',
        value.isoformat(),
        text.moment_in_full(value),
        str(int(length.total_seconds())),
        ago,
        text.age(length),
        ago,
    )


@register.simple_tag
def until(value: datetime) -> SafeString:
    """How long until something happens, or that it has."""
    left = value - timezone.now()
    return _time(value, f"in {text.age(left)}" if left > timedelta(0) else "now over")


def _time(value: datetime, shown: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        text.moment_in_full(value),
        shown,
    )


@register.simple_tag
def badge(words: str, tone: str = "") -> SafeString:
    """A word in a frame; the tone (amber, red) is only for what is not normal."""
    return format_html('<span class="badge {}">{}</span>', tone, words)


@register.simple_tag
def order_status(value: str) -> SafeString:
    """An order's status as a badge."""
    return badge(text.status(value), text.status_tone(value))


@register.simple_tag
def severity(value: str, words: str) -> SafeString:
    """A severity as a badge: to look at, to act on."""
    return badge(words, "red" if value == "critical" else "amber")


@register.simple_tag
def report_result(report: ReconciliationReport) -> SafeString:
    """What a comparison found, in words."""
    if not report.complete:
        return badge("Incomplete", "amber")
    found = report.differences_count
    if not found:
        return badge("Book equals broker")
    return badge(f"{found} differences" if found > 1 else "1 difference", "amber")


@register.simple_tag
def cause(entry: LedgerEntry) -> SafeString:
    """What made a ledger entry, linked to the page where it is explained."""
    if found := _ORDER_CAUSE.match(entry.cause):
        address = reverse("admin:orders_order_change", args=(found["id"],))
        if entry.cause.endswith("/restored"):
            return format_html('<a href="{}">Brought back by an order</a>', address)
        if entry.cause.endswith("/reversed"):
            words = "Late fill, in the figures taken over already"
            return format_html('<a href="{}">{}</a>', address, words)
        return format_html('<a href="{}">Order fill</a>', address)
    kind, _, key = entry.cause.partition("/")
    if kind == "correction" and key.isdigit():
        address = reverse("admin:reconciliation_correction_change", args=(int(key),))
        return format_html('<a href="{}">Correction {}</a>', address, key)
    if kind == "rebuild" and (number := key.partition("/")[0]).isdigit():
        address = reverse("admin:reconciliation_rebuild_change", args=(int(number),))
        return format_html('<a href="{}">Emergency rebuild {}</a>', address, number)
    if kind == "opening":
        return format_html("{}", "Taken over when the book was opened")
    return format_html("{}", entry.cause)


@register.filter
def exact(value: str) -> str:
    """A decimal that is stored as text, as every other number is written."""
    return text.shares(Decimal(value))


@register.filter
def exact_signed(value: str) -> str:
    """The same for a difference."""
    return text.signed_shares(Decimal(value))


@register.filter
def as_shown(value: Any) -> SafeString | str:
    """A field of a plain page, by its type."""
    if value is None or value == "":
        return text.NONE
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Decimal):
        return text.shares(value)
    return str(value)


@register.filter
def raw(value: Any) -> str:
    """The broker's own words, indented, with secrets blotted out."""
    return mask(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


@register.simple_tag
def page_address(cl: ChangeList, number: int) -> str:
    """The address of another page of a list, filters kept."""
    return cl.get_query_string({PAGE_VAR: number})
