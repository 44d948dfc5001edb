"""What W&B is sent beside a run's metrics: the table and page of a benchmark, and checkpoints with their origin on request."""

import contextlib
import csv
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import digest_of, read_json, write_json
from training.settings import TrackerSettings

NUMBERS = ("score", "low", "high", "se", "p_holm", "below_best", "below_best_low", "below_best_high")  # of report.csv


@contextlib.contextmanager
def mirroring() -> Iterator[list[Exception]]:
    """An error of W&B (no account, no network, a dead service) is told and listed; it never ends a run."""
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:
        failed.append(error)
        print(
            f"warning: W&B stopped mirroring ({type(error).__name__}: {error}). The run goes on; metrics.jsonl is "
            "complete. Set tracker.mode=offline without an account or network.",
            file=sys.stderr,
        )


def begin(settings: TrackerSettings, shown: dict[str, Any], identity: str, config: dict[str, Any]) -> Any:
    """W&B's run `identity`, new or resumed; `shown` is made by training.tracking.shown_as."""
    import wandb

    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        mode=settings.mode,
        id=identity,
        resume="allow",
        config=config,
        settings=wandb.Settings(console="off"),
        **shown,
    )


def identity_in(path: Path, known: bool) -> str:
    """The id under which W&B knows the run whose `path` keeps it: that of before if it is `known`, otherwise a new one."""
    identity = read_json(path)["id"] if known and path.exists() else secrets.token_hex(4)
    write_json(path, {"id": identity})
    return identity


def name_of(checkpoint: Path) -> str:
    """The name of a checkpoint's artifact: the last three parts of its run's folder, in the letters that W&B takes.

    It depends on the folder alone, so the pre-training run that makes a checkpoint and the fine-tuning run that starts from
    it give it the same name; with the same content it is one version for W&B, made by the one and used by the other.
    """
    place = checkpoint.absolute().parent if checkpoint.name == "checkpoint" else checkpoint.absolute()
    parts = [part for part in place.parts if part != "runs"][-3:]
    name = re.sub(r"[^\w.-]", "_", "-".join(parts))
    return name if len(name) <= 128 else f"{name[:119]}-{digest_of(name)[:8]}"


def send_checkpoint(mirror: Any, checkpoint: Path, place: Path, start: Path | None) -> None:
    """The folder `checkpoint`, which is or will be at `place`, as what the W&B run `mirror` made, and `start` as what it used.

    W&B's use_artifact refuses to work offline. What it calls for a new artifact does the same in both modes: the content is
    logged, and the run is noted as its user once it is there.
    """
    if start is not None:
        mirror._log_artifact(_artifact(start, start, "immutable"), is_user_created=True, use_after_commit=True)
    # Copied by W&B: a fine-tuned checkpoint is moved to its place at the end of its run, before an offline run is sent.
    mirror.log_artifact(_artifact(checkpoint, place, "mutable"))


def _artifact(checkpoint: Path, place: Path, policy: str) -> Any:
    import wandb

    # No description, time or run in it: the same checkpoint must be the same version, whoever logs it.
    artifact = wandb.Artifact(name_of(place), "checkpoint")
    artifact.add_dir(str(checkpoint), policy=policy)
    return artifact


def send_report(settings: TrackerSettings, shown: dict[str, Any], out: Path, config: dict[str, Any]) -> None:
    """report.csv of `out` as a table, its headline scores as the run's summary, and report.html, as one W&B run."""
    with mirroring():
        import wandb

        with open(out / "report.csv", encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        numeric = [name in NUMBERS for name in head]
        rows = [[_number(cell) if n else cell for cell, n in zip(line, numeric, strict=True)] for line in lines]
        mirror = begin(settings, shown, identity_in(out / "wandb.json", known=True), config)
        try:
            page = wandb.Html(str(out / "report.html"), inject=False)  # the page brings its own style
            mirror.log({"scores": wandb.Table(columns=head, data=rows), "report": page})
            for row in (dict(zip(head, line, strict=True)) for line in rows):
                if row["headline"] == "1":
                    mirror.summary[f"{row['task']}/{row['model']}"] = row["score"]
        finally:
            mirror.finish()


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # an empty cell
        return None
