"""The runs that led to a checkpoint and their device hours: its start, its teacher, and so on back to the first."""

from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_json
from model.store import resolve_checkpoint


def ledger(checkpoint: str | Path) -> dict[str, float | None]:
    """Every run that led to a checkpoint, including its own, with its device hours; None without a summary.json.

    The start and the teacher of a run are in its own summary, so the list reaches back to the first run; a checkpoint with
    several descendants is listed once.
    """
    folder = resolve_checkpoint(checkpoint)
    try:
        summary = read_json(folder.parent / "summary.json")
        hours = float(summary["hours"]) * int(summary.get("ranks", 1))
    except (UserError, KeyError, TypeError, ValueError):
        return {str(folder.absolute()): None}
    return {**(summary.get("ledger") or {}), str(folder.absolute()): hours}


def ancestry(*checkpoints: str | Path | None) -> dict[str, float | None]:
    """The combined ledgers of several checkpoints; None means no checkpoint."""
    return {run: hours for checkpoint in checkpoints if checkpoint for run, hours in ledger(checkpoint).items()}


def known_hours(hours: dict[str, float | None]) -> float | None:
    """Sum of the known hours; None if none is known, 0 for an empty ledger."""
    known = [value for value in hours.values() if value is not None]
    return sum(known) if known or not hours else None


def ancestry_hours(runs: dict[str, float | None], teacher: str | None) -> dict[str, Any]:
    """Entries of summary.json about earlier runs: those of its start (`runs`), and those only of its teacher."""
    more = {run: hours for run, hours in ancestry(teacher).items() if run not in runs}
    own, teacher_hours = known_hours(runs), known_hours(more) if teacher else None
    return {
        "pretraining_hours": "not measured" if own is None else own,
        "teacher_hours": teacher_hours if teacher_hours is not None or not teacher else "not measured",
        "not_measured": sorted(run for run, hours in {**runs, **more}.items() if hours is None),
        "ledger": {**runs, **more},
    }
