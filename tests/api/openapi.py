"""The API's document as it is kept beside the tests, and whether an answer is as it says.

`python -m tests.api.openapi` writes it anew, after a change that is meant: strategies are written
against it, so read the difference as they would.
"""

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import django
from openapi_schema_validator import OAS31Validator

SNAPSHOT = Path(__file__).with_name("openapi.json")
_PROBLEM = "application/problem+json"


@cache
def kept() -> Any:
    return json.loads(SNAPSHOT.read_text())


def operation_of(answer: Any) -> str:
    """`METHOD /path` of the document."""
    path = re.sub(r"<(\w+:)?(\w+)>", r"{\2}", answer.resolver_match.route)
    return f"{answer.wsgi_request.method} /{path}"


def check(answer: Any) -> int:
    """The answer's status, when status, media type and body are in the document."""
    method, path = operation_of(answer).split()
    responses = kept()["paths"][path][method.lower()]["responses"]
    response = responses[str(answer.status_code)]
    ((media_type, content),) = response["content"].items()
    assert answer["Content-Type"].partition(";")[0] == media_type
    assert (media_type == _PROBLEM) == (answer.status_code >= 400)
    schema = {**content["schema"], "components": kept()["components"]}
    faults = [
        f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}"
        for fault in OAS31Validator(schema).iter_errors(answer.json())
    ]
    assert not faults, (operation_of(answer), answer.status_code, faults)
    return int(answer.status_code)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")
    django.setup()
    from ordinis.api import api

    SNAPSHOT.write_text(json.dumps(api.get_openapi_schema(), indent=1) + "\n")
