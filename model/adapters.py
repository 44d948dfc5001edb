"""The weights that a fine-tuning run trains: all, low-rank adapters (LoRA), the upper blocks, or the head alone.

LoRA (Hu et al. 2021, arXiv 2106.09685) freezes a matrix W and learns alpha / rank x B A, which is added to it, with A
[rank, in] and B [out, rank], B = 0 at first. It applies to any linear layer of any encoder, by its name; query, key and value
are row ranges of one matrix here and can be adapted separately. Head and pooler are trained in full, saved with the adapter
and counted with it. `merged` gives a plain checkpoint with the same outputs, for every other command.

    python -m model.adapters ADAPTER --out CHECKPOINT [--base CHECKPOINT]     an adapter's folder to a plain checkpoint
"""

import argparse
import math
import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError, command
from common.files import read_json, sha256_file, write_json
from common.settings import plain
from model.convert.foreign import build_encoder
from model.encoder import Encoder
from model.folder import SUMS, WEIGHTS, read_weights, verify_checkpoint, write_checkpoint
from model.heads import TASK, TaskModel, has_pooler
from model.modern_head import add_modern_head
from model.settings import Lora
from model.store import load_task_model, read_checkpoint, resolve_checkpoint
from tokenization.tokenizer import Tokenizer

ADAPTER, VALUES = "adapter.json", "adapter.safetensors"  # of an adapter's folder
WHOLE = "all"  # the adapter of a layer's whole output
FUSED = ("query", "key", "value")  # row ranges of our qkv matrix, in this order
# Names of the three in transformers' encoders.
SAME = {
    "query": ("query_proj", "q_proj", "q_lin", "q"),
    "key": ("key_proj", "k_proj", "k_lin", "k"),
    "value": ("value_proj", "v_proj", "v_lin", "v"),
}
EMBEDDINGS = (
    "encoder.token_embeddings",
    "encoder.position_embeddings",
    "encoder.token_type_embeddings",
    "encoder.embedding_norm",
    "encoder.model.embeddings",
)
# The number of a block in a parameter's name: ours, and those of transformers' encoders (encoder.model.encoder.layer.3.).
BLOCK = re.compile(r"encoder\.(?:model\.)?(?:[a-z_]+\.)*?(?:blocks|layers?|block)\.(\d+)\.")


class LowRank(nn.Module):
    """The two low-rank matrices of one adapter: x [n, in] to (x A^T) B^T [n, out]; zero at first."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))  # as in the authors' code and peft

    def forward(self, x: Tensor, first: int, last: int) -> Tensor:
        """[n, in] to the outputs `first` to `last` [n, last - first]."""
        return F.linear(F.linear(x, self.a), self.b[first:last])


class AdaptedLinear(nn.Linear):
    """A linear layer with frozen weights, and adapters on all of its outputs or on ranges of them.

    It keeps the names of the layer's weight and bias; the adapters' are lora.<name>.a and lora.<name>.b.
    """

    def __init__(self, base: nn.Linear, ranges: dict[str, tuple[int, int]], rank: int, alpha: float, dropout: float) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would draw weights that are not needed
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.ranges, self.scale = ranges, alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora = nn.ModuleDict(
            {name: LowRank(base.in_features, last - first, rank) for name, (first, last) in ranges.items()}
        ).to(base.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return self.part(x, 0, self.out_features)

    def part(self, x: Tensor, first: int, last: int) -> Tensor:
        """Outputs `first` to `last` [..., last - first], including the adapters' contributions."""
        out = F.linear(x, self.weight[first:last], None if self.bias is None else self.bias[first:last])
        for name, (begin, end) in self.ranges.items():
            low, high = max(first, begin), min(last, end)
            if low < high:
                added = self.scale * self.lora[name](self.dropout(x), low - begin, high - begin)
                out = out + F.pad(added, (low - first, last - high)).to(out.dtype)
        return out

    @torch.no_grad()
    def merged(self) -> Tensor:
        """The weight [out, in] of a plain layer with the same outputs."""
        weight = self.weight.detach().clone()
        for name, (begin, end) in self.ranges.items():
            weight[begin:end] += self.scale * (self.lora[name].b @ self.lora[name].a)
        return weight


def linear_layers(encoder: nn.Module) -> dict[str, tuple[str, str]]:
    """The layers that can be adapted: name -> (layer, range), with "blocks.0.qkv.query" etc. in addition to "blocks.0.qkv"."""
    found = {}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear) and name != "pooler":
            found[name] = (name, WHOLE)
            if isinstance(encoder, Encoder) and name.endswith(".qkv"):
                found |= {f"{name}.{kind}": (name, kind) for kind in FUSED}
    return found


def is_meant(name: str, pattern: str) -> bool:
    """Whether a pattern matches a name: *, ? and [...] as in file names for all of it, else its last parts (SAME included)."""
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(name, pattern)
    return any(f".{name}".endswith(f".{word}") for word in (pattern, *SAME.get(pattern, ())))


def add_adapters(encoder: nn.Module, rank: int, alpha: float, dropout: float, targets: list[str]) -> list[str]:
    """Put adapters on the layers that `targets` name and freeze all other weights; returns the adapted names.

    Raises UserError for a target that matches no layer, and for a rank above a layer's own.
    """
    known = linear_layers(encoder)
    wanted: dict[str, dict[str, bool]] = {}
    for pattern in targets:
        fitting = [known[name] for name in known if is_meant(name, pattern)]
        if not fitting:
            kinds = sorted({re.sub(r"\.\d+\.", ".*.", f".{name}").lstrip(".") for name in known})
            raise UserError(f"recipe.lora.targets: no linear layer is named {pattern!r}. There are: {', '.join(kinds)}.")
        for layer, kind in fitting:
            wanted.setdefault(layer, {})[kind] = True
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    adapted = []
    for layer, kinds in wanted.items():
        base = encoder.get_submodule(layer)
        height = base.out_features // len(FUSED)
        ranges = {kind: (n * height, (n + 1) * height) for n, kind in enumerate(FUSED) if kind in kinds}
        if WHOLE in kinds:  # the whole matrix includes its named parts
            ranges = {WHOLE: (0, base.out_features)}
        if rank > min(base.in_features, *(last - first for first, last in ranges.values())):
            raise UserError(
                f"recipe.lora.rank={rank}: {layer} is {base.out_features} x {base.in_features}; a rank above its "
                "own saves nothing. Set a smaller one."
            )
        parent, _, own = layer.rpartition(".")
        setattr(encoder.get_submodule(parent), own, AdaptedLinear(base, ranges, rank, alpha, dropout))
        adapted += [layer if kind == WHOLE else f"{layer}.{kind}" for kind in ranges]
    return adapted


def depth_of(name: str, layers: int) -> int:
    """Depth of a task model's parameter: 0 for embeddings, i + 1 for block i, layers + 1 for everything after."""
    if (block := BLOCK.match(name)) is not None:
        return int(block[1]) + 1
    return 0 if name.startswith(EMBEDDINGS) else layers + 1


def freeze_layers(model: TaskModel, count: int) -> None:
    """Freeze the embeddings and the first `count` blocks. UserError if there are fewer, or if blocks have no number."""
    layers = model.encoder.config.layers
    depths = {name: depth_of(name, layers) for name, _ in model.named_parameters()}
    if not 0 <= count <= layers:
        raise UserError(f"recipe.freeze_layers={count}: the encoder has {layers} layers.")
    if not set(range(layers + 1)) <= set(depths.values()):
        raise UserError(f"recipe.freeze_layers={count}: the blocks of this architecture share their weights; set null.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(depths[name] > count)


def choose_trained(
    model: TaskModel,
    lora: Lora | None = None,
    frozen: int | None = None,
    linear_probe: bool = False,
    pretrained_pooler: bool = False,
) -> str:
    """Freeze what a recipe does not train; returns what is trained in words, for summary.json.

    `lora`: adapters. `frozen`: so many blocks at the bottom, and the embeddings. `linear_probe`: the encoder frozen, without
    dropout too, and a linear head; a pooler only where the checkpoint has one, and frozen. Head and pooler are trained in
    full beside adapters and frozen layers. UserError for what cannot go together.
    """
    if lora:
        pooler = list(model.encoder.pooler.parameters()) if model.encoder.pooler is not None else []
        count = len(add_adapters(model.encoder, lora.rank, lora.alpha, lora.dropout, lora.targets))
        for parameter in pooler:
            parameter.requires_grad_(True)
        return f"LoRA of rank {lora.rank} on {count} matrices ({', '.join(lora.targets)}), and the head"
    if linear_probe:
        if model.encoder.pooler is not None and not pretrained_pooler:
            raise UserError(
                "recipe.linear_probe=true: the checkpoint has no pooler, and a probe cannot train a new one. Set "
                "recipe.pooling=mean or cls."
            )
        model.linear_probe = True
        for parameter in model.encoder.parameters():
            parameter.requires_grad_(False)
        return "the linear head alone"
    if frozen is not None:
        freeze_layers(model, frozen)
        return f"all but the embeddings and the first {frozen} blocks"
    return "all weights"


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the host of the weights that training may have changed."""
    return {name: p.detach().to("cpu", copy=True) for name, p in model.named_parameters() if p.requires_grad}


def merged(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the host of all weights of the plain model with the same outputs: adapters are added to their matrices."""
    weights = {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items() if ".lora." not in name}
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            weights[f"{name}.weight"] = module.merged().cpu()
    return weights


# ---------------------------------------------------------------- an adapter's folder


def write_adapter(folder: Path, model: TaskModel, lora: Lora, base: str, task: dict[str, Any]) -> None:
    """adapter.safetensors (adapters, head, pooler) and adapter.json: how they were made, on which checkpoint, for what task."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(trained_weights(model), folder / VALUES)
    sums = read_json(resolve_checkpoint(base) / SUMS)
    origin = {"path": str(Path(base).absolute()) if "://" not in base else base, "weights": sums[WEIGHTS]}
    write_json(folder / ADAPTER, {"lora": plain(lora), "base": origin, "task": task, "sha256": sha256_file(folder / VALUES)})


def find_adapter(path: str | Path) -> Path | None:
    """The adapter's folder at `path` (itself, or `path`/adapter if `path` has no checkpoint); None if there is none."""
    path = Path(path)
    if (path / ADAPTER).exists():
        return path
    whole = (path / "checkpoint" / WEIGHTS).exists() or (path / WEIGHTS).exists()
    return path / "adapter" if not whole and (path / "adapter" / ADAPTER).exists() else None


def load_adapted(folder: str | Path, base: str | Path | None = None) -> tuple[TaskModel, Tokenizer, dict[str, Any]]:
    """The task model of an adapter on its checkpoint, in eval mode, with its tokenizer and its task.

    `base` replaces the checkpoint's path if it has moved. Raises UserError for a damaged adapter, a missing base, and a base
    whose weights differ from those that the adapter was trained on.
    """
    folder = Path(folder)
    info = read_json(folder / ADAPTER)
    if not (folder / VALUES).exists() or sha256_file(folder / VALUES) != info["sha256"]:
        raise UserError(f"{folder / VALUES}: missing or damaged (checksum differs). Restore it or train the adapter again.")
    place = base or info["base"]["path"]
    if "://" not in str(place) and not Path(place).exists():
        raise UserError(f"{folder}: its checkpoint {place} is not there. Say where it is now: --base CHECKPOINT.")
    place = resolve_checkpoint(place)
    verify_checkpoint(place)
    if read_json(place / SUMS).get(WEIGHTS) != info["base"]["weights"]:
        raise UserError(f"{folder}: was trained on other weights than those of {place}. Give those: --base CHECKPOINT.")
    weights, config, tokenizer, _ = read_checkpoint(place)
    try:
        values = read_weights(folder / VALUES)
    except safetensors.SafetensorError as error:
        raise UserError(f"{folder / VALUES}: cannot be read ({error}). Restore it or train the adapter again.") from None
    task, lora = info["task"], info["lora"]
    pooling = task.get("pooling") or "pooler"
    encoder = build_encoder(config, has_pooler(task["kind"], pooling))
    model = TaskModel(encoder, task["kind"], len(task["labels"] or []), pooling)
    if "head.dense.weight" in values:
        add_modern_head(model)
    own = model.state_dict()
    kept = {name: value for name, value in weights.items() if name.startswith("encoder.") and name in own}
    model.load_state_dict(kept, strict=False)
    choose_trained(model, Lora(**lora))
    trained = {name: p.shape for name, p in model.named_parameters() if p.requires_grad}
    lacking = [n for n in own if n not in kept and n not in trained]
    if lacking or trained != {name: value.shape for name, value in values.items()}:
        odd = sorted(set(trained) ^ set(values)) or lacking or sorted(trained)
        raise UserError(f"{folder}: the adapter does not fit {place} ({', '.join(odd[:3])}). Train it again on this one.")
    model.load_state_dict(values, strict=False)
    return model.eval(), tokenizer, task


def load_any(path: str | Path, base: str | Path | None = None) -> tuple[TaskModel, Tokenizer, dict[str, Any]]:
    """A fine-tuned checkpoint or an adapter's folder, as load_task_model."""
    adapter = find_adapter(path)
    return load_adapted(adapter, base) if adapter is not None else load_task_model(path)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.adapters", description="Merge an adapter into its checkpoint.")
    parser.add_argument("adapter", help="the folder adapter/ that finetune.py wrote beside the predictions")
    parser.add_argument("--out", required=True, help="folder of the plain checkpoint")
    parser.add_argument("--base", help="checkpoint it was trained on, where that has moved")
    options = parser.parse_args(arguments)
    folder = find_adapter(options.adapter)
    if folder is None:
        raise UserError(f"{options.adapter}: no {ADAPTER} there. Give the adapter/ folder of such a run.")
    if Path(options.out).exists():
        raise UserError(f"{options.out}: exists already. Give --out a new name, or remove it.")
    model, tokenizer, task = load_adapted(folder, options.base)
    extra = {"name": Path(options.out).name, "adapter": str(folder)}
    write_checkpoint(options.out, merged(model), model.encoder.config, tokenizer, extra, {TASK: task})
    print(f"{options.out}: {folder} merged into its checkpoint")


if __name__ == "__main__":
    sys.exit(main())
