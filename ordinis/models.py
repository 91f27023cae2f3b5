"""What the clocks and processes leave behind: runs of the periodic jobs, signs of life.

Nothing here is business: losing these rows loses no order. Must never be locked for the time of
a job (a lease is two short updates).
"""

from django.db import models


class JobRun(models.Model):
    """The last run of a periodic job, and the lease that keeps it from running twice at once."""

    name = models.CharField(max_length=50, primary_key=True)
    last_started_at = models.DateTimeField(null=True, editable=False)
    last_finished_at = models.DateTimeField(null=True, editable=False)
    last_duration = models.FloatField("last duration (s)", null=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)
    failures = models.PositiveIntegerField("failures in a row", default=0, editable=False)
    lease_holder = models.CharField(max_length=32, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "periodic job"

    def __str__(self) -> str:
        return self.name


class Heartbeat(models.Model):
    """When a kind of process (web, listen, clock, worker, beat) last did its work."""

    name = models.CharField(max_length=20, primary_key=True)
    last_seen_at = models.DateTimeField(editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "process"
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return self.name
