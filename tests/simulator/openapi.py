"""Judges an answer by an OpenAPI 3.0 description: what in it is not as described, field by field.

Only what Alpaca's description uses. It never fetches anything, and judges the description itself in
nothing.
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from ordinis.simulator import moments

Json = Any
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_ULID = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Description:
    """One OpenAPI document."""

    def __init__(self, document: Json) -> None:
        self._document = document

    def operation(self, method: str, path: str) -> Json:
        return self._document["paths"][path][method.lower()]

    def statuses(self, method: str, path: str) -> set[int]:
        return {int(status) for status in self.operation(method, path)["responses"]}

    def schema(self, method: str, path: str, status: int) -> Json:
        """Of the body of an answer; None where it has none."""
        response = self._resolve(self.operation(method, path)["responses"][str(status)])
        for content in response.get("content", {}).values():
            return content["schema"]
        return None

    def _resolve(self, schema: Json) -> Json:
        while "$ref" in schema:
            target = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            schema = target
        return schema

    def faults(self, value: Json, schema: Json, where: str = "") -> Iterator[str]:
        """What is wrong with a value, each as `place: what`."""
        schema = self._resolve(schema)
        if value is None:
            if not schema.get("nullable"):
                yield f"{where}: null"
            return
        for part in schema.get("allOf", ()):
            yield from self.faults(value, part, where)
        for name in ("oneOf", "anyOf"):
            if name in schema:
                yield from self._alternatives(value, schema[name], where)
        kind = schema.get("type")
        if kind is not None and not self._has_type(value, kind):
            yield f"{where}: {type(value).__name__} for {kind}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is not in the enum"
        if isinstance(value, str):
            yield from self._faults_of_text(value, schema, where)
        elif isinstance(value, list):
            for row in value:
                yield from self.faults(row, schema.get("items", {}), f"{where}[]")
        elif isinstance(value, dict):
            yield from self._faults_of_object(value, schema, where)

    def unknown(self, value: Json, schema: Json, where: str = "") -> Iterator[str]:
        """Fields that the description does not name."""
        schema = self._resolve(schema)
        if isinstance(value, list):
            for row in value:
                yield from self.unknown(row, schema.get("items", {}), f"{where}[]")
        elif isinstance(value, dict):
            known = self._properties(schema)
            for name, part in value.items():
                if name not in known:
                    yield f"{where}.{name}"
                else:
                    yield from self.unknown(part, known[name], f"{where}.{name}")

    def _properties(self, schema: Json) -> dict[str, Json]:
        schema = self._resolve(schema)
        found: dict[str, Json] = dict(schema.get("properties", {}))
        for name in ("allOf", "oneOf", "anyOf"):
            for part in schema.get(name, ()):
                found |= self._properties(part)
        return found

    def _alternatives(self, value: Json, schemas: Json, where: str) -> Iterator[str]:
        attempts = [list(self.faults(value, schema, where)) for schema in schemas]
        if all(attempts):
            yield from min(attempts, key=len)

    def _has_type(self, value: Json, kind: str) -> bool:
        if isinstance(value, bool):
            return kind == "boolean"
        return isinstance(value, _TYPES[kind])

    def _faults_of_text(self, value: str, schema: Json, where: str) -> Iterator[str]:
        if len(value) < schema.get("minLength", 0):
            yield f"{where}: shorter than {schema['minLength']}"
        if len(value) > schema.get("maxLength", len(value)):
            yield f"{where}: longer than {schema['maxLength']}"
        form = schema.get("format")
        if form is not None and not _has_format(value, form):
            yield f"{where}: {value!r} is no {form}"

    def _faults_of_object(self, value: Json, schema: Json, where: str) -> Iterator[str]:
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}.{name}: missing"
        for name, part in schema.get("properties", {}).items():
            if name in value:
                yield from self.faults(value[name], part, f"{where}.{name}")


def _has_format(value: str, form: str) -> bool:
    try:
        if form == "uuid":
            uuid.UUID(value)
        elif form == "date":
            date.fromisoformat(value)
        elif form == "date-time":
            moments.parse(value)
            return "T" in value
        elif form == "decimal":
            Decimal(value)
        elif form == "ulid":
            return _ULID.fullmatch(value) is not None
        else:
            raise AssertionError(f"the description uses a format not known here: {form}")
    except (ValueError, InvalidOperation):
        return False
    return True
