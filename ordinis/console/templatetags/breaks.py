"""Figures of breaks and corrections for templates, in the unit of their kind. Holds no rule."""

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ordinis.console import breaks_text, text
from ordinis.console.templatetags.console import badge
from reconciliation.models import Correction
from reconciliation.words import explained

register = template.Library()

register.filter("ours_of", breaks_text.ours)
register.filter("brokers_of", breaks_text.brokers)
register.filter("difference_of", breaks_text.differing)
register.filter("what_of", breaks_text.what)
register.filter("subject_of", breaks_text.subject)
register.filter("sentence_of", breaks_text.sentence)
register.filter("explained", explained)


@register.simple_tag
def differing(row: Any) -> SafeString:
    """A break's or a correction's difference, standing out."""
    return format_html('<span class="n differs">{}</span>', breaks_text.differing(row))


@register.simple_tag
def correction_status(row: Correction) -> SafeString:
    """Its state as a badge: amber while it waits, or where a trade was not taken."""
    if row.problem:
        return badge("Approved, not carried out", "amber")
    return badge(row.get_status_display(), "amber" if row.status == "proposed" else "")


@register.filter
def kind_words(kind: str) -> str:
    """A kind of break that is stored as its code."""
    return breaks_text.KIND_WORDS.get(kind, kind.replace("_", " ").capitalize())


@register.simple_tag
def figure(value: str | Decimal | None, kind: str) -> str:
    """A figure of a report, which stores them as text, in the unit of its kind; of an order it may
    be a status."""
    if value is None or value == "":
        return text.NONE
    try:
        return breaks_text.figure(Decimal(value), breaks_text.unit(kind))
    except InvalidOperation:
        return text.status(str(value))


@register.filter
def seconds(value: Decimal | None) -> str:
    """A number of seconds as a length of time."""
    return text.NONE if value is None else text.span(timedelta(seconds=float(value)))
