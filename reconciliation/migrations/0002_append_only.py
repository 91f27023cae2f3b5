"""The history of breaks, what the broker told of trades outside, and rebuilds are append-only: the
database itself refuses update and delete.
"""

from django.db import migrations

_TABLES = ("breakevent", "brokeractivity", "rebuild")
FORWARD = "".join(
    f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON reconciliation_{table} "
    "FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();"
    for table in _TABLES
)
BACKWARD = "".join(f"DROP TRIGGER append_only ON reconciliation_{table};" for table in _TABLES)


class Migration(migrations.Migration):
    dependencies = [
        ("reconciliation", "0001_initial"),
        ("positions", "0002_append_only"),
    ]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
