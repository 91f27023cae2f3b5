"""The embedded PostgreSQL: `ENGINE = "ordinis.database"` starts it when it is first needed.

`base` is Django's side, `embedded` a process's hold on the server, `keeper` the small process
that starts the server and stops it after its last user, `backup` the dump before a migration.
Must import nothing here: the keeper loads this package without Django.
"""
