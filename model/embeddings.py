"""Sentence vectors: the mean of an encoder's last hidden states, at unit length; and a folder for sentence-transformers.

    python -m model.embeddings vectors CHECKPOINT FILE OUT.npy   one text a line (or .jsonl with "text") to [n, H] fp32
    python -m model.embeddings export CHECKPOINT OUT [--card-data FILE]

The mean is over all tokens of a text, including [CLS] and [SEP], as in sentence-transformers' Pooling. Any checkpoint
gives vectors; `python -m training.sentences` trains one whose vectors are close if the meanings are.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError, command
from common.files import open_text, open_whole, put_in_place, read_json, read_jsonl, sync_tree, write_json, write_text, writing
from data.layout import Layout, move
from model.convert.export import card as encoder_card
from model.convert.export import family_of, read_card_data, tokenizer_settings, without_paths
from model.convert.families import CLASSES, config_to_transformers, to_transformers
from model.convert.foreign import ForeignEncoder
from model.encoder import Encoder, EncoderConfig
from model.folder import CONFIG, WEIGHTS
from model.store import load_encoder, read_checkpoint, resolve_checkpoint
from tokenization.tokenizer import Tokenizer

SENTENCES = "sentences.json"  # written into a checkpoint by training.sentences: {"max_length", ...}
AT_ONCE = 8192  # tokens of one forward pass
PREFIXES = {"bert": "bert.", "modernbert": "model."}  # prefix of the encoder in a *For* model; the bare model has none


def rows_of(tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> list[np.ndarray]:
    """Ids [n] of each text with [CLS] and [SEP], truncated to `max_length`."""
    return [
        np.concatenate([[tokenizer.cls_id], ids[: max_length - 2], [tokenizer.sep_id]])
        for ids in tokenizer.encode_batch(list(texts))
    ]


def mean_vectors(encoder: Encoder | ForeignEncoder, rows: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Unit vectors [n, H] in fp32 of these texts: the mean over each one's tokens. Gradients flow."""
    return mean_of(encoder, *flat(rows, device))


def flat(rows: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, Layout]:
    """Ids [T] of these texts one after another, and their layout, on `device`; made on the host, so that nothing waits."""
    return move(torch.from_numpy(np.concatenate(rows)), device), Layout.of([len(row) for row in rows]).to(device)


def mean_of(encoder: Encoder | ForeignEncoder, ids: Tensor, layout: Layout) -> Tensor:
    """As `mean_vectors`, of the texts of a flat batch ids [T]."""
    hidden, sizes = encoder(ids, layout), layout.starts.diff().long()
    owner = torch.repeat_interleave(torch.arange(len(sizes), device=ids.device), sizes, output_size=layout.total)
    sums = torch.zeros(len(sizes), hidden.shape[1], device=ids.device).index_add(0, owner, hidden.float())
    return F.normalize(sums / sizes[:, None], dim=1)


@torch.no_grad()
def embed(encoder: Encoder | ForeignEncoder, tokenizer: Tokenizer, texts: Sequence[str], max_length: int) -> Tensor:
    """Unit vectors [n, H] (fp32, on the host) of texts, in order. The encoder returns to the mode it was in."""
    was_training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    rows = rows_of(tokenizer, texts, min(max_length, encoder.config.max_length))
    vectors = torch.zeros(len(rows), encoder.config.hidden_size)
    batch: list[int] = []
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for place, number in enumerate(order):
        batch.append(number)
        if place + 1 == len(order) or sum(len(rows[i]) for i in batch) + len(rows[order[place + 1]]) > AT_ONCE:
            vectors[batch] = mean_vectors(encoder, [rows[i] for i in batch], device).cpu()
            batch = []
    encoder.train(was_training)
    return vectors


def sentence_settings(folder: Path, config: EncoderConfig) -> dict[str, Any]:
    """The contents of sentences.json of a checkpoint, or defaults without one."""
    said = read_json(folder / SENTENCES) if (folder / SENTENCES).exists() else {}
    return {"max_length": min(512, config.max_length)} | said


def export_sentences(checkpoint: str | Path, out: str | Path, card_data: str | Path | None = None) -> list[str]:
    """Write `out`, a folder for SentenceTransformer(out): encoder, mean pooling, unit length. Returns notes to print.

    transformers' AutoModel loads the same folder. Raises UserError as model.convert.export does.
    """
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
    given = read_card_data(card_data)
    weights, config, tokenizer, values = read_checkpoint(folder)
    family = family_of(config, tokenizer, values, folder)
    kept = {n: v for n, v in weights.items() if n.startswith("encoder.") and not n.startswith("encoder.pooler.")}
    prefix = PREFIXES.get(family, "roberta.")
    named = {name.removeprefix(prefix): value.contiguous() for name, value in to_transformers(kept, config, family).items()}
    special, tokenizer_config = tokenizer_settings(tokenizer, config, family, folder)
    theirs = config_to_transformers(config, family, special) | {"architectures": [CLASSES[family] + "Model"]}
    settings = sentence_settings(folder, config)
    pooling = {"word_embedding_dimension": config.hidden_size, "include_prompt": True} | {
        f"pooling_mode_{mode}": mode == "mean_tokens"
        for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    }
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with writing(out / WEIGHTS):
            safetensors.torch.save_file(named, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CONFIG, theirs | {"dtype": "float32", "ours": without_paths(values)})
        tokenizer.save(beside)
        write_json(beside / "tokenizer_config.json", read_json(beside / "tokenizer_config.json") | tokenizer_config)
        write_json(
            beside / "modules.json",
            [
                {"idx": int(number), "name": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
                for number, path, kind in modules
            ],
        )
        write_json(beside / "1_Pooling" / CONFIG, pooling)
        write_json(beside / "2_Normalize" / CONFIG, {})
        write_json(
            beside / "sentence_bert_config.json", {"max_seq_length": int(settings["max_length"]), "do_lower_case": False}
        )
        write_json(beside / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", "prompts": {}})
        write_text(beside / "README.md", _card(folder, config, tokenizer, values, given, named, settings))
        sync_tree(beside)
        put_in_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [] if "license" in given else ["no license given: the card says unknown. Set license in --card-data"]


def _card(
    folder: Path,
    config: EncoderConfig,
    tokenizer: Tokenizer,
    values: dict[str, Any],
    given: dict[str, Any],
    named: dict[str, Tensor],
    settings: dict[str, Any],
) -> str:
    """The encoder's card, rewritten for a sentence encoder."""
    text = encoder_card(folder, config, tokenizer, values, None, given, sum(value.numel() for value in named.values()))
    text = text.replace("library_name: transformers", "library_name: sentence-transformers")
    text = text.replace("pipeline_tag: fill-mask", "pipeline_tag: sentence-similarity")
    text = text.replace("A masked language model:", "A sentence encoder (mean of the last hidden states, unit length):")
    before, _, after = text.partition("## Use\n")
    use = "from sentence_transformers import SentenceTransformer\n\n"
    use += 'vectors = SentenceTransformer("FOLDER_OR_ID").encode(["Salam!"])'
    scores = f"\nSentence vectors: {settings['scores']}.\n" if settings.get("scores") else ""
    return f"{before}## Use\n\n```python\n{use}\n```\n{scores}\n## Limits\n" + after.partition("## Limits\n")[2]


def read_texts(path: str | Path) -> list[str]:
    """The texts of a file: "text" of each object of a .jsonl, otherwise its lines. Raises UserError for a line without one."""
    if ".jsonl" not in Path(path).name:
        with open_text(path) as file:
            return [line.rstrip("\n") for line in file]
    texts = []
    for line, record in read_jsonl(path):
        if not isinstance(record.get("text"), str):
            raise UserError(f'{path}, line {line}: no "text". Each line must be an object with a "text".')
        texts.append(record["text"])
    return texts


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.embeddings", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("vectors", help="write the vectors of the texts in a file")
    make.add_argument("checkpoint", help="checkpoint, run folder, Hugging Face folder or hub://owner/name")
    make.add_argument("file", help='one text a line, or .jsonl with "text"')
    make.add_argument("out", help=".npy file for the vectors [n, H], fp32")
    give = commands.add_parser("export", help="write a folder that sentence-transformers loads")
    give.add_argument("checkpoint", help="checkpoint or run folder")
    give.add_argument("out", help="folder to write")
    give.add_argument("--card-data", help="YAML or JSON file: license, language, tags, datasets, data, limits, title")
    options = parser.parse_args(arguments)
    if options.command == "vectors":
        texts = read_texts(options.file)
        encoder, tokenizer = load_encoder(options.checkpoint)
        settings = sentence_settings(resolve_checkpoint(options.checkpoint), encoder.config)
        with open_whole(options.out) as file:
            np.save(file, embed(encoder, tokenizer, texts, settings["max_length"]).numpy())
    else:
        for note in export_sentences(options.checkpoint, options.out, options.card_data):
            print(note)
    print(options.out)


if __name__ == "__main__":
    sys.exit(main())
