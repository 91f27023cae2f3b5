"""The OpenAPI document: what ninja makes of the code, and what all operations have in common.

Problems get RFC 9457's media type, every operation names the errors that come from outside its own
function (token, parsing, database), and `security` names the scope that it needs. What belongs to
one operation stands at its function, never here.
"""

from http import HTTPStatus
from typing import Any

from ninja import NinjaAPI
from ninja.openapi.schema import REF_TEMPLATE, OpenAPISchema
from ninja.operation import Operation
from ninja.schema import NinjaGenerateJsonSchema
from pydantic.json_schema import models_json_schema

from ordinis.accounts.auth import Scope
from ordinis.http import InvalidOut, ProblemOut

_EVERYWHERE: dict[int, type[ProblemOut]] = {
    401: ProblemOut,
    403: ProblemOut,
    422: InvalidOut,
    500: ProblemOut,
    503: ProblemOut,
}
_WITH_A_BODY = {400: ProblemOut}
_RETRY_AFTER = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}}


class DocumentedAPI(NinjaAPI):
    """An API that serves this document."""

    def get_openapi_schema(
        self, *, path_prefix: str | None = None, path_params: dict[str, Any] | None = None
    ) -> OpenAPISchema:
        if path_prefix is None:
            path_prefix = self.get_root_path(path_params or {})
        return _Document(self, path_prefix)


class _Document(OpenAPISchema):
    def get_components(self) -> dict[str, Any]:
        _, schemas = models_json_schema(
            [(ProblemOut, "serialization"), (InvalidOut, "serialization")],
            ref_template=REF_TEMPLATE,
            schema_generator=NinjaGenerateJsonSchema,
        )
        self.add_schema_definitions(schemas["$defs"])
        self.securitySchemes["bearer"] = {"type": "http", "scheme": "bearer"}
        return super().get_components()

    def responses(self, operation: Operation) -> dict[int, dict[str, Any]]:
        told: dict[int, dict[str, Any]] = super().responses(operation)
        outside = _EVERYWHERE | (_WITH_A_BODY if self.request_body(operation) else {})
        for status, problem in outside.items():
            schema = {"$ref": REF_TEMPLATE.format(model=problem.__name__)}
            content = {self.api.renderer.media_type: {"schema": schema}}
            description = HTTPStatus(status).phrase
            told.setdefault(status, {"description": description, "content": content})
        for status, response in told.items():
            if status >= 400:
                (problem,) = response["content"].values()
                response["content"] = {"application/problem+json": problem}
        told[503]["headers"] = _RETRY_AFTER
        return dict(sorted(told.items()))

    def operation_security(self, operation: Operation) -> list[dict[str, list[str]]]:
        scopes = [auth.scope for auth in operation.auth_callbacks if isinstance(auth, Scope)]
        return [{"bearer": scopes}]
