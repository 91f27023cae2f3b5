"""A process that uses the database, led over its standard input; `python -m tests.database.user`.

Each line is a command; each answer is one line.
"""

import os
import sys
import time
import warnings

from django.db import Error, connection


def query(statement: str) -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return str(cursor.fetchone()[0]) if cursor.description else "done"
    except Error as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    warnings.simplefilter("ignore", RuntimeWarning)  # the apps are not needed here, nor loaded
    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "query":
            answer = query(rest)
        elif command == "close":
            connection.close()
            answer = "closed"
        elif command == "fork":
            # As a task queue's worker: forked with everything set up, ends without a clean-up.
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            answer = str(child)
        else:
            raise ValueError(line)
        sys.stdout.write(answer.replace("\n", " ") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
