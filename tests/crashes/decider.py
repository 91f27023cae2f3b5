"""A person who approves a correction, in a process of its own.

`python -m tests.crashes.decider CORRECTION USERNAME`; with ORDINIS_FAILPOINT set it dies there.
"""

import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")


def main(correction: str, username: str) -> None:
    django.setup()
    from django.contrib.auth.models import User

    from reconciliation.corrections import NotDecided, decide

    try:
        decide(
            int(correction),
            "approve",
            user=User.objects.get(username=username),
            comment="Seen in the broker's own app.",
        )
    except NotDecided as error:
        print(f"not decided: {error}")  # noqa: T201
    else:
        print("applied")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
