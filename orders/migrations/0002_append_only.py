"""An order's history is append-only: the database itself refuses update and delete."""

from django.db import migrations

FORWARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON orders_orderhistory
    FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();
"""
BACKWARD = "DROP TRIGGER append_only ON orders_orderhistory;"


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial"), ("positions", "0002_append_only")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
