"""Write a checkpoint as an ONNX file, in fp32 and, if asked, with int8 weights, for programs without torch.

    python -m model.convert.onnx CHECKPOINT OUT [--int8]

OUT/model.onnx reads input_ids and attention_mask [batch, length] (1 for tokens, 0 for padding at the end; `bert` with two
token types also token_type_ids) and gives `logits`: of a pre-trained model over the vocabulary at every token, of a fine-tuned
one the outputs of its head, for a text or, for tags and answers, for every token. A checkpoint without a head gives
`last_hidden_state`. The tokenizer's files lie beside it. --int8 adds model-int8.onnx, whose matrices are int8 and whose
activations are quantised as they come (onnxruntime's dynamic quantisation). Needs onnx, onnxruntime and onnxscript.
"""

import argparse
import contextlib
import importlib
import io
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError, command
from common.files import put_in_place, read_json, sync_tree, write_json
from model.adapters import load_any
from model.embeddings import SENTENCES
from model.encoder import Encoder, rotary_table
from model.folder import CONFIG
from model.heads import TASK
from model.store import load_encoder, load_masked_lm, resolve_checkpoint

NEEDED = ("onnx", "onnxruntime", "onnxscript")
FILE, SMALL = "model.onnx", "model-int8.onnx"


class Rectangle(nn.Module):
    """An encoder on padded rows [batch, length] instead of a flat batch: the form that other programs expect.

    `model` is an encoder, or has one and a head; the output is computed as that model does.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.encoder: Encoder = getattr(model, "encoder", model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Ids and mask [batch, length], int64, to logits or hidden states."""
        hidden = self.hidden(input_ids, attention_mask, token_type_ids)
        if self.model is self.encoder:
            return hidden
        if hasattr(self.model, "decode"):
            return self.model.decode(self.model.head(hidden))
        if self.model.pooling == "pooler":
            hidden = self.encoder.pool(hidden[:, 0])
        elif self.model.pooling == "cls":
            hidden = hidden[:, 0]
        elif self.model.pooling == "mean":
            there = attention_mask[..., None].to(hidden.dtype)
            hidden = (hidden * there).sum(1) / there.sum(1)
        return self.model.head(hidden)

    def hidden(self, ids: Tensor, mask: Tensor, types: Tensor | None) -> Tensor:
        """Last hidden states [batch, length, H]; those of padding mean nothing."""
        encoder, config = self.encoder, self.encoder.config
        place = torch.arange(ids.shape[1], device=ids.device)
        x, tables = encoder.token_embeddings(ids), {}
        if config.architecture == "bert":
            x = x + encoder.position_embeddings(place + config.position_offset)
            types = torch.zeros_like(ids) if types is None else types.clamp(max=config.type_vocab_size - 1)
            x = x + encoder.token_type_embeddings(types)
        else:
            size = config.hidden_size // config.heads
            for local, theta in ((False, config.global_theta), (True, config.local_theta)):
                tables[local] = tuple(part.transpose(0, 1) for part in rotary_table(place, theta, size))  # [1, length, d / 2]
        x = encoder.embedding_norm(x)
        whole = mask[:, None, None, :] > 0
        near = whole & ((place[:, None] - place[None]).abs() <= config.window)
        for number, block in enumerate(encoder.blocks):
            local = config.is_local(number)
            x = self.block(block, x, near if local else whole, tables.get(local))
        return encoder.final_norm(x)

    def block(self, block: nn.Module, x: Tensor, sees: Tensor, table: tuple[Tensor, Tensor] | None) -> Tensor:
        """One block on x [batch, length, H]; `sees` [batch, 1, 1 or length, length] says which tokens attend to which."""
        modern = table is not None
        normed = block.attention_norm(x) if modern else x
        q, k, v = block.qkv(normed).unflatten(2, (3, block.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = block.q_norm(q), block.k_norm(k)
        if modern:
            q, k = turned(q, *table), turned(k, *table)
        scores = (q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
        chances = scores.masked_fill(~sees, torch.finfo(scores.dtype).min).softmax(3)
        attended = block.attention_out((chances @ v).transpose(1, 2).flatten(2))
        if not modern:
            x = block.attention_norm(x + attended)
            return block.mlp_norm(x + block.mlp_out(block.activation(block.mlp_in(x))))
        x = x + attended
        up, gate = block.mlp_in(block.mlp_norm(x)).chunk(2, dim=-1)
        return x + block.mlp_out(block.activation(up) * gate)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate both halves of each head of x [batch, heads, length, d] by the angles [1, length, d / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def libraries() -> None:
    """UserError with the command to install them if one of the optional libraries is missing."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UserError(f"ONNX needs {name}, which is not installed. Run pip install {' '.join(NEEDED)}.") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The libraries' own progress and advice are not shown."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def load_model(checkpoint: str | Path) -> tuple[nn.Module, Any, dict[str, Any] | None]:
    """The model behind a checkpoint in eval mode (task model, masked LM or encoder), its tokenizer and its task."""
    folder = resolve_checkpoint(checkpoint)
    if (folder / TASK).exists() or not (folder / CONFIG).exists():
        return load_any(checkpoint)
    if (folder / SENTENCES).exists():
        return *(part for part in load_encoder(folder)), None
    try:
        return *load_masked_lm(folder), None
    except UserError as error:
        if "no masked-LM head" not in str(error):
            raise
        return *load_encoder(folder), None


@torch.no_grad()
def export(checkpoint: str | Path, out: str | Path, int8: bool = False) -> Path:
    """Write the folder `out`; returns the path of the fp32 file.

    Raises UserError without the libraries, if `out` exists, and for an encoder of another architecture.
    """
    libraries()
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
    model, tokenizer, task = load_model(checkpoint)
    model.eval()
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, Encoder):
        raise UserError(f"{checkpoint}: an encoder of another architecture; export it with its own library.")
    if getattr(model, "ngrams", None) is not None:
        raise UserError(f"{checkpoint}: recipe.ngrams, which is not written as ONNX. Fine-tune with recipe.ngrams=0 to export.")
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if encoder.config.architecture == "bert" and encoder.config.type_vocab_size > 1 else []
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=encoder.config.max_length)
    example = torch.full((2, 8), tokenizer.pad_id), torch.ones(2, 8, dtype=torch.int64), torch.zeros(2, 8, dtype=torch.int64)
    output = "last_hidden_state" if model is encoder else "logits"
    with quiet():
        torch.onnx.export(
            Rectangle(model),
            example[: len(names)],
            str(beside / FILE),
            input_names=names,
            output_names=[output],
            dynamic_shapes=tuple({0: batch, 1: length} for _ in names),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with quiet():
            quantize_dynamic(
                beside / FILE, beside / SMALL, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
            )
    tokenizer.save(beside)
    if task is not None:
        write_json(beside / TASK, task)
    write_json(beside / CONFIG, {"encoder": encoder.config.to_dict(), "inputs": names, "output": output})
    sync_tree(beside)
    put_in_place(beside, out)
    return out / FILE


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.convert.onnx", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="checkpoint, run folder, Hugging Face folder or hub://owner/name")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--int8", action="store_true", help="also write model-int8.onnx")
    options = parser.parse_args(arguments)
    path = export(options.checkpoint, options.out, options.int8)
    for file in sorted(path.parent.glob("*.onnx")):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, inputs {', '.join(read_json(path.parent / CONFIG)['inputs'])}")


if __name__ == "__main__":
    sys.exit(main())
