"""A checkpoint of ours as a Hugging Face folder: AutoModelFor*, AutoTokenizer and fill-mask load it with equal outputs.

Heads of fine-tuned checkpoints go along. What transformers' classes cannot compute is an error, never an approximation.
`python -m model.huggingface import` brings the folder back to the same bits. README.md is the model card.
"""

import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor

from common.errors import UserError
from common.files import put_in_place, read_json, sync_tree, write_json, write_text
from model.encoder import EncoderConfig
from model.families import SUFFIXES, config_to_transformers, to_transformers
from model.folder import CONFIG, WEIGHTS
from model.heads import POOLED, TASK
from model.store import read_checkpoint, resolve_checkpoint
from tokenization.tokenizer import SETTINGS_FILE, Tokenizer

CARD_KEYS = {"title": str, "license": str, "language": (str, list), "tags": list, "datasets": list, "data": str, "limits": str}
PIPELINES = {None: "fill-mask", "classification": "text-classification", "pair": "text-classification",
             "choice": "multiple-choice", "tagging": "token-classification", "qa": "question-answering"}  # fmt: skip
LIMITS = (
    "The model repeats what its corpus says, prejudices and mistakes included. It was made for Azerbaijani; on other "
    "languages and on text unlike its corpus expect less. Judge it on your own data before use."
)


def export_checkpoint(
    checkpoint: str | Path, out: str | Path, card_data: str | Path | None = None, dtype: str = "float32"
) -> list[str]:
    """Write `out`, a folder for transformers; returns what is to be said about it.

    `card_data`: a YAML or JSON file of CARD_KEYS for the model card. Raises UserError: not a checkpoint, something in it that
    transformers' classes cannot do, unknown card data, `out` there already.
    """
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already. Give another folder, or remove it first.")
    given = read_card_data(card_data)
    weights, config, tokenizer, values = read_checkpoint(folder)
    task = read_json(folder / TASK) if (folder / TASK).exists() else None
    kind = None if task is None else task["kind"]
    family = family_of(config, tokenizer, values, folder)
    notes = []
    if kind is None and "head.bias" not in weights:
        raise UserError(f"{folder}: has no masked-LM head and no {TASK}, so no AutoModelFor* fits it. Take a whole checkpoint.")
    check_head(task, config, weights, folder)
    if kind is None and any(name.startswith("encoder.pooler.") for name in weights):
        notes.append("the pooler is left out: *ForMaskedLM has none")
        weights = {name: value for name, value in weights.items() if not name.startswith("encoder.pooler.")}
    special, tokenizer_config = tokenizer_settings(tokenizer, config, family, folder)
    pooling = None if task is None or kind not in POOLED else task.get("pooling") or "pooler"
    theirs = config_to_transformers(config, family, special, kind, None if task is None else task["labels"], pooling)
    named = to_transformers(weights, config, family, kind)
    if config.dropout and family == "modernbert":
        notes.append("dropout: ours is on the sums of both branches, ModernBERT's inside its MLP; it matters in training only")

    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        kept: dict[str, Tensor] = {name: value.to(getattr(torch, dtype)).contiguous() for name, value in named.items()}
        safetensors.torch.save_file(kept, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CONFIG, theirs | {"dtype": dtype, "ours": values})
        tokenizer.save(beside)
        write_json(beside / SETTINGS_FILE, read_json(beside / SETTINGS_FILE) | tokenizer_config)
        if task is not None:
            write_json(beside / TASK, task)
        parameters = sum(value.numel() for value in kept.values())
        write_text(beside / "README.md", card(folder, config, tokenizer, values, task, given, parameters))
        sync_tree(beside)
        put_in_place(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if "license" not in given:
        notes.append("no license given: the card says unknown. Set license in --card-data")
    return notes


def tokenizer_settings(
    tokenizer: Tokenizer, config: EncoderConfig, family: str, folder: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """(special ids for config.json, what tokenizer_config.json says more). UserError for one without a tokenizer.json."""
    if tokenizer.engine is None:
        raise UserError(f"{folder}: its tokenizer is a sentencepiece .model alone. Add its tokenizer.json and convert it anew.")
    special = {
        "pad_token_id": tokenizer.pad_id, "cls_token_id": tokenizer.cls_id, "sep_token_id": tokenizer.sep_id,
        "bos_token_id": tokenizer.cls_id, "eos_token_id": tokenizer.sep_id, "mask_token_id": tokenizer.mask_id,
    }  # fmt: skip
    reads_types = family == "bert" and config.types > 1
    inputs = ["input_ids", *(["token_type_ids"] if reads_types else []), "attention_mask"]
    # transformers applies none of it to a tokenizer.json, but tells its users so; max_length is what the encoder reads.
    return special, {"model_input_names": inputs, "model_max_length": config.max_length}


def family_of(config: EncoderConfig, tokenizer: Tokenizer, values: dict[str, Any], folder: Path) -> str:
    """transformers' model_type for this encoder. Raises UserError where no class computes the same."""
    if config.architecture == "foreign":
        raise UserError(f"{folder}: is a foreign encoder, which transformers loads from where it came. Nothing to export.")
    if config.architecture == "modern":
        return "modernbert"
    if config.position_offset == 0:
        return "bert"
    if config.position_offset != tokenizer.pad_id + 1:
        raise UserError(
            f"{folder}: model.position_offset={config.position_offset}, but transformers knows 0 (BERT) and the padding "
            f"piece's id + 1 = {tokenizer.pad_id + 1} (RoBERTa) only. Such an encoder cannot be exported."
        )
    known = (values.get("source") or {}).get("family")
    return known if known in ("roberta", "xlm-roberta") else "xlm-roberta"


def check_head(task: dict[str, Any] | None, config: EncoderConfig, weights: dict[str, Tensor], folder: Path) -> None:
    """UserError for a task head that transformers has no class for."""
    if task is None:
        return
    if task["kind"] not in SUFFIXES:
        raise UserError(
            f"{folder}: a head of kind {task['kind']} has no AutoModelFor* class. Export the pre-trained checkpoint."
        )
    pooling = (task.get("pooling") or "pooler") if task["kind"] in POOLED else None
    if config.architecture == "bert" and pooling not in (None, "pooler"):
        raise UserError(
            f"{folder}: recipe.pooling={pooling}, but BERT's classes in transformers read classes off the pooler only. "
            "Fine-tune with recipe.pooling=pooler to export."
        )
    if config.architecture == "modern" and "head.dense.weight" not in weights:
        raise UserError(
            f"{folder}: its head is one linear layer{' over a pooler' if pooling == 'pooler' else ''}; ModernBERT's classes in "
            "transformers have a dense layer, GELU and norm before it (model/modern_head.py). Fine-tune with "
            "recipe.modern_head=true and recipe.pooling=cls or mean to export."
        )


def read_card_data(path: str | Path | None) -> dict[str, Any]:
    """What a card-data file says; UserError for a file that is not there or not YAML, and for unknown keys and types."""
    if path is None:
        return {}
    if not Path(path).is_file():
        raise UserError(f"--card-data {path}: no such file.")
    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())}). Correct the file.") from None
    if not isinstance(given, dict):
        raise UserError(f"{path}: expected keys and values. There are: {', '.join(CARD_KEYS)}.")
    for key, value in given.items():
        if key not in CARD_KEYS:
            raise UserError(f"{path}: unknown key {key!r}. There are: {', '.join(CARD_KEYS)}.")
        if not isinstance(value, CARD_KEYS[key]):
            raise UserError(f"{path}: {key}={value!r}: expected {'a list' if CARD_KEYS[key] is list else 'a string'}.")
    return given


def card(folder: Path, config: EncoderConfig, tokenizer: Tokenizer, values: dict[str, Any], task: dict[str, Any] | None,
         given: dict[str, Any], parameters: int) -> str:  # fmt: skip
    """README.md: YAML for the hub, then what it is, data, recipe, scores, how to use it and its limits.

    Recipe and scores are those of config.yaml and summary.json in the run folder around the checkpoint, where they are.
    """
    run = folder.parent
    summary = read_json(run / "summary.json") if folder.name == "checkpoint" and (run / "summary.json").exists() else {}
    recipe = (run / "config.yaml").read_text() if folder.name == "checkpoint" and (run / "config.yaml").exists() else ""
    kind = None if task is None else task["kind"]
    name = given.get("title") or values.get("name") or folder.name
    language = given.get("language", "az")
    meta: dict[str, Any] = {
        "language": [language] if isinstance(language, str) else language, "license": given.get("license", "unknown"),
        "library_name": "transformers", "pipeline_tag": PIPELINES[kind],
        "tags": given.get("tags") or ["azerbaijani", "encoder", "masked-language-modeling"],
    }  # fmt: skip
    if given.get("datasets"):
        meta["datasets"] = given["datasets"]
    if "test_score" in summary:
        meta["model-index"] = [{"name": name, "results": [{
            "task": {"type": PIPELINES[kind]}, "dataset": {"name": summary["task"], "type": summary["task"]},
            "metrics": [{"type": summary["metric"], "value": round(100 * summary["test_score"], 2)}],
        }]}]  # fmt: skip
    source = (values.get("source") or {}).get("repository")
    what = "A masked language model" if task is None else f"An encoder fine-tuned for {kind} ({task.get('task')})"
    shape = (
        f"{what}: architecture `{config.architecture}`, {config.layers} layers x {config.hidden_size}, {config.heads} heads, "
        f"{tokenizer.vocab_size:,} pieces ({tokenizer.kind}), up to {config.max_length} tokens, {parameters:,} parameters."
    )
    parts = [
        "---\n" + yaml.safe_dump(meta, allow_unicode=True, sort_keys=False) + "---\n", f"# {name}\n", shape,
        *([f"Started from `{source}` at commit `{values['source'].get('commit')}`."] if source else []),
        "\n## Data\n", given.get("data") or _data(summary),
        "\n## Training\n", f"```yaml\n{recipe.strip()}\n```" if recipe else "No config.yaml was found beside the checkpoint.",
        "\n## Scores\n", _scores(summary),
        "\n## Use\n", _use(kind, tokenizer),
        "\n## Limits\n", given.get("limits") or LIMITS,
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _data(summary: dict[str, Any]) -> str:
    """The sources and epochs that summary.json of a pre-training run knows."""
    if not summary.get("epochs") or not isinstance(summary["epochs"], dict):
        return "Not described. The data and its licences are named by whoever publishes the model."
    rows = [f"| {source} | {passes:.2f} |" for source, passes in summary["epochs"].items()]
    return "\n".join(["| source | epochs |", "|---|---|", *rows, "", f"{summary['tokens']:,} tokens read in all."])


def _scores(summary: dict[str, Any]) -> str:
    """The scores of summary.json, of a task or of the held-out text."""
    if "test_score" in summary:
        return (
            f"{summary['task']}: {summary['metric']} {100 * summary['test_score']:.1f} on test, "
            f"{100 * summary['dev_score']:.1f} on dev (seed {summary['seed']}; one run, so no interval)."
        )
    heldout = summary.get("heldout") or {}
    if "bits_per_character" in heldout:
        return (
            f"Held-out text: {heldout['bits_per_character']:.3f} bits per character, loss {heldout['loss']:.3f} nats a masked "
            "piece (15 % masked)."
        )
    return "Not measured."


def _use(kind: str | None, tokenizer: Tokenizer) -> str:
    mask = tokenizer.special_pieces[4]
    if kind is None:
        code = (
            f'from transformers import pipeline\n\nfill = pipeline("fill-mask", "FOLDER_OR_ID")\n'
            f'print(fill("Bakı Azərbaycanın {mask} şəhəridir."))'
        )
    else:
        name = "AutoModel" + SUFFIXES[kind]
        code = (
            f"from transformers import {name}, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_ID")\nmodel = {name}.from_pretrained("FOLDER_OR_ID")'
        )
    return f"```python\n{code}\n```"
