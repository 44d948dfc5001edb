"""The state of a fine-tuning run on disk, so that a killed or stopped run goes on inside its seed, bit by bit.

<out>/<model>/<task>/.seed-<n>.part/state-<step>.pt    weights, optimizer, best epoch and counters
                                     state.json        which file is complete, its SHA-256, and the identity of the run
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import json_line, open_whole, read_json, sha256_file, write_json

INDEX = "state.json"


@dataclass
class Best:
    """The best epoch on dev, and totals over all epochs."""

    rank: tuple[float, float] = (-float("inf"), -float("inf"))  # dev score, minus dev loss
    epoch: int = 0  # from 1; 0: none had a finite dev loss
    records: list[dict[str, Any]] = field(default_factory=list)  # its predictions on dev
    weights: dict[str, Tensor] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)  # decoding settings, including those chosen on dev
    epochs: int = 0
    steps: int = 0
    tokens: int = 0


@dataclass
class Progress:
    """Where the loop stands: `done` steps of epoch `epoch` (from 0) are made, with these losses."""

    best: Best = field(default_factory=Best)
    epoch: int = 0
    losses: list[Tensor] = field(default_factory=list)
    waited: int = 0  # epochs since the best one
    total: int = 0  # steps of all epochs; 0: not known
    seconds: float = 0.0  # of earlier parts of the run
    digest: str = ""  # identity of the run


def write_progress(folder: Path, progress: Progress, learned: dict[str, Any]) -> None:
    """Write the state; the one before is removed once it is complete. `learned`: weights, optimizers and the average, as
    torch.save takes them."""
    best = progress.best
    state = {
        "progress": {key: value for key, value in vars(progress).items() if key not in ("best", "losses")},
        "best": {key: value for key, value in vars(best).items() if key not in ("records", "how", "rank")},
        "rank": list(best.rank),
        "records": [json_line(record).decode() for record in best.records],
        "how": json.dumps(best.how),
        "losses": torch.stack(progress.losses).cpu() if progress.losses else torch.zeros(0),
        "learned": learned,
    }
    name = f"state-{best.steps:08d}.pt"
    with open_whole(folder / name) as file:
        torch.save(state, file)
    write_json(folder / INDEX, {"digest": progress.digest, "file": name, "sha256": sha256_file(folder / name)})
    for old in folder.glob("state-*.pt"):
        if old.name != name:
            old.unlink()


def read_progress(folder: Path, digest: str) -> tuple[Progress, dict[str, Any]] | None:
    """(progress, `learned`) that was written for a run of this identity; None without one.

    A damaged state is named on stderr, and the run starts over.
    """
    try:
        index = read_json(folder / INDEX) if (folder / INDEX).exists() else {}
        if index.get("digest") != digest:
            return None
        path = folder / index["file"]
        if not path.exists() or sha256_file(path) != index["sha256"]:
            raise UserError(f"{path}: missing or damaged (checksum differs).")
    except (UserError, KeyError) as error:
        print(f"warning: {error} The run starts over.", file=sys.stderr)
        return None
    state = torch.load(path, weights_only=True, map_location="cpu")
    records = [json.loads(line) for line in state["records"]]
    best = Best(**state["best"], rank=tuple(state["rank"]), records=records, how=json.loads(state["how"]))
    return Progress(best, losses=list(state["losses"]), **state["progress"]), state["learned"]


def forget_progress(folder: Path) -> None:
    """Remove the state of a run that is complete."""
    for path in [folder / INDEX, *folder.glob("state-*.pt")]:
        path.unlink(missing_ok=True)
