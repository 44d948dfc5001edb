"""Average the weights of several checkpoints, which is often better than any single one (arXiv 1803.05407).

    python -m training.average CHECKPOINT CHECKPOINT ... --out FOLDER

Use it for checkpoints of one run (runs/NAME/pretrain/checkpoints/step-*) or of runs that differ only in data order. The
mean of weights from different initialisations is worse than each of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from common.errors import UserError, command
from model.folder import write_checkpoint
from model.store import read_checkpoint


def average_checkpoints(checkpoints: Sequence[str | Path], out: str | Path) -> None:
    """Write a checkpoint to `out` whose weights are the mean of those given; summed in fp64, one checkpoint at a time.

    UserError for fewer than two, for a damaged or missing one, for a different architecture, size or tokenizer, and if
    `out` already exists.
    """
    if len(checkpoints) < 2:
        raise UserError(f"{len(checkpoints)} checkpoint given: name at least two, e.g. runs/NAME/pretrain/checkpoints/step-*.")
    if Path(out).exists():
        raise UserError(f"{out}: exists already. Give --out a new name, or remove it.")
    weights, config, tokenizer, values = read_checkpoint(checkpoints[0])
    total = {name: value.double() for name, value in weights.items()}
    for path in checkpoints[1:]:
        more, other, its, _ = read_checkpoint(path)
        if other != config or more.keys() != total.keys():
            mine, theirs = config.to_dict(), other.to_dict()
            keys = [f"{key}: {mine[key]} and {theirs[key]}" for key in mine if mine[key] != theirs[key]] or ["other weights"]
            raise UserError(f"{path}: not the model of {checkpoints[0]} ({'; '.join(keys)}). Average checkpoints of one run.")
        if its.identity != tokenizer.identity:
            raise UserError(f"{path}: trained with another tokenizer than {checkpoints[0]}. Average checkpoints of one run.")
        for name, value in more.items():
            total[name] += value
    mean = {name: (value / len(checkpoints)).to(weights[name].dtype) for name, value in total.items()}
    if not all(torch.isfinite(value).all() for value in mean.values()):
        raise UserError("a checkpoint holds weights that are not finite. Leave it out.")
    extra = {"name": values.get("name") or Path(out).name, "average_of": [str(path) for path in checkpoints]}
    extra |= {"language": values["language"]} if values.get("language") else {}
    write_checkpoint(out, mean, config, tokenizer, extra)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.average", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoints", nargs="+", help="checkpoint or run folders, two or more")
    parser.add_argument("--out", required=True, help="folder of the new checkpoint")
    options = parser.parse_args(arguments)
    average_checkpoints(options.checkpoints, options.out)
    print(f"average of {len(options.checkpoints)} checkpoints written to {options.out}")


if __name__ == "__main__":
    sys.exit(main())
