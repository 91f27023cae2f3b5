"""`import_sectors`: shows what a CSV of symbols and sectors would change, and does it."""

import getpass
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from positions import sectors
from positions.sector_file import COLUMNS, MAX_BYTES, parse


class Command(BaseCommand):
    help = f"Import the sectors of symbols from a CSV with the columns {', '.join(COLUMNS)}."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE")
        parser.add_argument("--reason", default="", help="Why; required unless --dry-run.")
        parser.add_argument("--dry-run", action="store_true", help="Only show the differences.")
        parser.add_argument(
            "--new-sector", action="store_true", help="Sectors that no symbol has yet are meant."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with Path(options["file"]).open("rb") as file:
                parsed = parse(file.read(MAX_BYTES + 1))
        except OSError as error:
            raise CommandError(f"{options['file']} can't be read: {error.strerror}.") from error
        shown = sectors.preview(parsed)
        self._show(shown)
        if shown.errors:
            raise CommandError("Nothing was imported: correct the lines named, and run it again.")
        if options["dry_run"]:
            self.stdout.write("Dry run: nothing was imported.")
            return
        if not (shown.new or shown.changed):
            self.stdout.write("Nothing to import: all of it is stored already.")
            return
        if not options["reason"].strip():
            raise CommandError("Nothing was imported. Say why: --reason 'TEXT'.")
        if shown.new_sectors and not options["new_sector"]:
            raise CommandError(
                "Nothing was imported: no symbol has the new sectors named above yet. Correct the "
                "file, or say with --new-sector that they are meant."
            )
        try:
            sectors.apply(
                parsed,
                actor=f"command line ({getpass.getuser()})",
                reason=options["reason"],
                digest=shown.digest,
                new_sectors=options["new_sector"],
            )
        except sectors.NotApplied as error:
            raise CommandError(str(error)) from error
        self.stdout.write("Imported.")

    def _show(self, shown: sectors.Preview) -> None:
        for error in shown.errors:
            self.stderr.write(f"line {error.line}: {error.message}")
        for word, changes in (("new", shown.new), ("changed", shown.changed)):
            for change in changes:
                what = "; ".join(
                    f"{column}: {was or '(none)'} → {now}"
                    for column, was, now in change.differences
                )
                self.stdout.write(f"{word} {change.symbol}: {what}")
        for change in shown.overridden:
            self.stdout.write(
                f"overridden {change.symbol}: goes on counting as {change.override}, not as "
                f"{change.after.sector}"
            )
        for sector in shown.new_sectors:
            like = f"; did you mean {sector.like}?" if sector.like else ""
            lines = ", ".join(str(line) for line in sector.lines[:10])
            self.stdout.write(f"new sector {sector.name}: line {lines}{like}")
        self.stdout.write(
            f"{len(shown.new)} new, {len(shown.changed)} changed, {shown.unchanged} unchanged"
        )
