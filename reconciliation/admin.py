"""Breaks, corrections, reports, the broker's answers and rebuilds in the console: their pages stand
in `ordinis.console`. Who may decide and what is applied is this app's other modules' to say.
"""

from django.contrib import admin

from ordinis.console.breaks_page import BreakAdmin
from ordinis.console.corrections_admin import CorrectionAdmin
from ordinis.console.rebuild_page import RebuildAdmin
from ordinis.console.reports_admin import ReportAdmin, SnapshotAdmin
from reconciliation.models import Break, Correction, Rebuild, ReconciliationReport, Snapshot

admin.site.register(Break, BreakAdmin)
admin.site.register(Correction, CorrectionAdmin)
admin.site.register(ReconciliationReport, ReportAdmin)
admin.site.register(Snapshot, SnapshotAdmin)
admin.site.register(Rebuild, RebuildAdmin)
