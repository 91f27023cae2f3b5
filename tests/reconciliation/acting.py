"""An act of a person in a process of its own, which dies where ORDINIS_FAILPOINT says.

`python -m tests.reconciliation.acting rebuild ACCOUNT | adopt BREAK | carry_out CORRECTION`
"""

import os
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ordinis.settings")


def main(act: str, key: int) -> None:
    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User

    from ordinis.accounts.models import BrokerAccount
    from reconciliation.adoption import adopt
    from reconciliation.models import Break
    from reconciliation.rebuild import rebuild
    from reconciliation.trades import carry_out

    settings.SECOND_LOOK_SECONDS = 0
    if act == "rebuild":
        account = BrokerAccount.objects.get(pk=key)
        rebuild(account, typed=account.name, actor="ann", reason="the test wants it")
    elif act == "adopt":
        person = User.objects.get(username="ann")
        adopt(Break.objects.get(pk=key), by=person, reason="the test wants it")
    else:
        carry_out(key)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
