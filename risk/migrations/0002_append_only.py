"""Changes of the trading state stay as they were written: the database refuses update and delete.

The function, and why its error code is what it is: positions.migrations.0002_append_only.
"""

from django.db import migrations

FORWARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON risk_tradingchange
    FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();
"""
BACKWARD = "DROP TRIGGER append_only ON risk_tradingchange;"


class Migration(migrations.Migration):
    dependencies = [("risk", "0001_initial"), ("positions", "0002_append_only")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
