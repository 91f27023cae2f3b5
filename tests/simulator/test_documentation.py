"""The manual names everything there is to set and to send."""

from dataclasses import fields
from pathlib import Path

from ordinis.simulator.faults import KINDS
from ordinis.simulator.options import Options
from ordinis.simulator.server import build_app

MANUAL = (Path(__file__).resolve().parents[2] / "docs" / "simulator.md").read_text()


def test_every_fault_option_and_control_is_in_the_manual() -> None:
    routes = {
        resource.canonical.rstrip("/")
        for resource in build_app().router.resources()
        if resource.canonical.startswith("/sim/")
    }
    names = {*KINDS, *(field.name for field in fields(Options))}

    assert {name for name in names if f"`{name}`" not in MANUAL} == set()
    assert {route for route in routes if route not in MANUAL} == set()
    rows = [line for line in MANUAL.splitlines() if line.startswith("| `")]
    assert {name for name in KINDS if not any(f"| `{name}` |" in row for row in rows)} == set()
