"""The ledgers of shares and cash and the changes of sectors are append-only: the database itself refuses update and delete.

The error code is an integrity violation, so that Django raises IntegrityError.
"""

from django.db import migrations

FORWARD = """
CREATE FUNCTION ordinis_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON positions_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON positions_cashentry
    FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON positions_sectorchange
    FOR EACH ROW EXECUTE FUNCTION ordinis_append_only();
"""
BACKWARD = """
DROP TRIGGER append_only ON positions_sectorchange;
DROP TRIGGER append_only ON positions_cashentry;
DROP TRIGGER append_only ON positions_ledgerentry;
DROP FUNCTION ordinis_append_only();
"""


class Migration(migrations.Migration):
    dependencies = [("positions", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
