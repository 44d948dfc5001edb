"""Export a checkpoint as a Hugging Face folder, which AutoModelFor*, AutoTokenizer and fill-mask load with equal outputs.

Heads of fine-tuned checkpoints are included. Settings that transformers' classes cannot compute are an error, never an
approximation. `python -m model.huggingface import` restores the same weights bit by bit. README.md is the model card.
"""

import re
import shutil
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor

from common.errors import UserError
from common.files import put_in_place, read_json, sync_tree, write_json, write_text, writing
from language.base import Language, load_language
from model.convert.families import check_expressible, config_to_transformers, to_transformers
from model.encoder import EncoderConfig
from model.folder import CONFIG, WEIGHTS
from model.heads import TASK, is_pooled
from model.ngrams import NGRAMS
from model.store import language_of, read_checkpoint, resolve_checkpoint
from tasks.base import kind_of
from tokenization.tokenizer import SETTINGS_FILE, Tokenizer

CARD_KEYS = {"title": str, "license": str, "language": (str, list), "tags": list, "datasets": list, "data": str, "limits": str}
LIMITS = (
    "The model repeats its corpus, including prejudices and mistakes. {made}On text unlike its corpus expect less. "
    "Evaluate it on your own data before use."
)


def export_checkpoint(
    checkpoint: str | Path, out: str | Path, card_data: str | Path | None = None, dtype: str = "float32"
) -> list[str]:
    """Write `out`, a folder for transformers; returns notes to print.

    `card_data`: a YAML or JSON file of CARD_KEYS for the model card. Raises UserError: not a checkpoint, a setting that
    transformers' classes lack, unknown card data, `out` exists.
    """
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
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
    pooling = None if task is None or not is_pooled(kind) else task.get("pooling") or "pooler"
    theirs = config_to_transformers(config, family, special, kind, None if task is None else task["labels"], pooling)
    named = to_transformers(weights, config, family, kind)
    if task is not None and task.get("range") not in (None, [0.0, 1.0]):
        low, high = task["range"]
        notes.append(f"its outputs are scores from 0 to 1, which stand for {low:g} to {high:g} (range in {TASK})")
    if config.dropout and family == "modernbert":
        notes.append("dropout: ours is on the sums of both branches, ModernBERT's inside its MLP; it matters in training only")

    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        kept: dict[str, Tensor] = {name: value.to(getattr(torch, dtype)).contiguous() for name, value in named.items()}
        with writing(out / WEIGHTS):
            safetensors.torch.save_file(kept, beside / WEIGHTS, metadata={"format": "pt"})
        write_json(beside / CONFIG, theirs | {"dtype": dtype, "ours": without_paths(values)})
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
    if "language" not in given and not languages_of(tokenizer, values, task):
        notes.append("the checkpoint names no language, so the card has none. Set language in --card-data")
    if "license" not in given:
        notes.append("no license given: the card says unknown. Set license in --card-data")
    return notes


def tokenizer_settings(
    tokenizer: Tokenizer, config: EncoderConfig, family: str, folder: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """(special ids for config.json, additions to tokenizer_config.json). Raises UserError without a tokenizer.json."""
    if tokenizer.engine is None:
        raise UserError(
            f"{folder}: its tokenizer is a sentencepiece .model alone. Add its tokenizer.json and convert it again."
        )
    special = {
        "pad_token_id": tokenizer.pad_id,
        "cls_token_id": tokenizer.cls_id,
        "sep_token_id": tokenizer.sep_id,
        "bos_token_id": tokenizer.cls_id,
        "eos_token_id": tokenizer.sep_id,
        "mask_token_id": tokenizer.mask_id,
    }
    reads_types = family == "bert" and config.type_vocab_size > 1
    inputs = ["input_ids", *(["token_type_ids"] if reads_types else []), "attention_mask"]
    # transformers does not apply these to a tokenizer.json but shows them to users; max_length is the encoder's.
    return special, {"model_input_names": inputs, "model_max_length": config.max_length}


def family_of(config: EncoderConfig, tokenizer: Tokenizer, values: dict[str, Any], folder: Path) -> str:
    """transformers' model_type for this encoder. Raises UserError if no class computes the same."""
    if config.architecture == "foreign":
        raise UserError(f"{folder}: is a foreign encoder, which transformers loads from its source. Nothing to export.")
    known = (values.get("source") or {}).get("family")
    shifted = known if known in ("roberta", "xlm-roberta") else "xlm-roberta"
    family = "modernbert" if config.architecture == "modern" else "bert" if config.position_offset == 0 else shifted
    check_expressible(config, family, str(folder))
    if family == shifted and config.position_offset != tokenizer.pad_id + 1:
        raise UserError(
            f"{folder}: position_offset={config.position_offset}, but transformers knows 0 (BERT) and the padding "
            f"token's id + 1 = {tokenizer.pad_id + 1} (RoBERTa) only. Such an encoder cannot be exported."
        )
    return family


def check_head(task: dict[str, Any] | None, config: EncoderConfig, weights: dict[str, Tensor], folder: Path) -> None:
    """UserError for a task head without a class in transformers."""
    if task is None:
        return
    if NGRAMS in weights:
        raise UserError(f"{folder}: recipe.ngrams has no class in transformers. Fine-tune with recipe.ngrams=0 to export.")
    if kind_of(task["kind"]).transformers is None:
        raise UserError(
            f"{folder}: a head of kind {task['kind']} has no AutoModelFor* class. Export the pre-trained checkpoint."
        )
    pooling = (task.get("pooling") or "pooler") if is_pooled(task["kind"]) else None
    if config.architecture == "bert" and pooling not in (None, "pooler"):
        raise UserError(
            f"{folder}: recipe.pooling={pooling}, but BERT's classes in transformers read classes off the pooler only. "
            "Fine-tune with recipe.pooling=pooler to export."
        )
    if config.architecture == "modern" and "head.dense.weight" not in weights:
        raise UserError(
            f"{folder}: its head is one linear layer{' over a pooler' if pooling == 'pooler' else ''}; ModernBERT's classes in "
            "transformers have a dense layer, GELU and norm before it (model/modern_head.py). Fine-tune with "
            "recipe.head=modern and recipe.pooling=cls or mean to export."
        )


def read_card_data(path: str | Path | None) -> dict[str, Any]:
    """The contents of a card-data file; UserError for a missing file, invalid YAML, unknown keys and wrong types."""
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


def card(
    folder: Path,
    config: EncoderConfig,
    tokenizer: Tokenizer,
    values: dict[str, Any],
    task: dict[str, Any] | None,
    given: dict[str, Any],
    parameters: int,
) -> str:
    """README.md: YAML for the hub, then description, data, recipe, scores, usage and limits.

    Recipe and scores are taken from config.yaml and summary.json in the run folder of the checkpoint, if they exist; other
    seeds of the run are in folders beside it. Paths of this machine are removed.
    """
    run = folder.parent
    summary = read_json(run / "summary.json") if folder.name == "checkpoint" and (run / "summary.json").exists() else {}
    recipe = (run / "config.yaml").read_text() if folder.name == "checkpoint" and (run / "config.yaml").exists() else ""
    kind = None if task is None else task["kind"]
    pipeline = "fill-mask" if kind is None else kind_of(kind).pipeline
    name = given.get("title") or values.get("name") or folder.name
    languages = languages_of(tokenizer, values, task)
    language = given.get("language", [pack.code for pack in languages])
    meta: dict[str, Any] = {
        **({"language": [language] if isinstance(language, str) else language} if language else {}),
        "license": given.get("license", "unknown"),
        "library_name": "transformers",
        "pipeline_tag": pipeline,
        "tags": given.get("tags") or [*(pack.name for pack in languages), "encoder", "masked-language-modeling"],
    }
    if given.get("datasets"):
        meta["datasets"] = given["datasets"]
    if "test_score" in summary:
        meta["model-index"] = [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": pipeline},
                        "dataset": {"name": summary["task"], "type": summary["task"]},
                        "metrics": [{"type": summary["metric"], "value": round(100 * summary["test_score"], 2)}],
                    }
                ],
            }
        ]
    source = (values.get("source") or {}).get("repository")
    what = "A masked language model" if task is None else f"An encoder fine-tuned for {kind} ({task.get('task')})"
    shape = (
        f"{what}: architecture `{config.architecture}`, {config.layers} layers x {config.hidden_size}, {config.heads} heads, "
        f"{tokenizer.vocab_size:,} tokens ({tokenizer.kind}), up to {config.max_length} tokens, {parameters:,} parameters."
    )
    trained = f"```yaml\n{hide_paths(recipe).strip()}\n```" if recipe else "No config.yaml was found beside the checkpoint."
    parts = [
        "---\n" + yaml.safe_dump(meta, allow_unicode=True, sort_keys=False) + "---\n",
        f"# {name}\n",
        shape,
        *([f"Started from `{source}` at commit `{values['source'].get('commit')}`."] if source else []),
        "\n## Data\n",
        given.get("data") or _data(summary),
        "\n## Training\n",
        trained,
        "\n## Scores\n",
        _scores(summary, run),
        "\n## Use\n",
        _use(kind, tokenizer, languages),
        "\n## Limits\n",
        given.get("limits") or LIMITS.format(made=_made_for(languages)),
    ]
    return "\n".join(parts) + "\n"


def languages_of(tokenizer: Tokenizer, values: dict[str, Any], task: dict[str, Any] | None) -> list[Language]:
    """The languages that a checkpoint records: of what it was pre-trained on, and of its task where that is another one."""
    said = (task or {}).get("language")
    found = [language_of(values, tokenizer), load_language(said) if said else None]
    return list(dict.fromkeys(pack for pack in found if pack and pack.code != "und"))  # undetermined


def _made_for(languages: list[Language]) -> str:
    if not languages:
        return ""
    return f"It was made for {' and '.join(pack.title for pack in languages)}; on other languages expect less. "


def _data(summary: dict[str, Any]) -> str:
    """The sources and epochs in summary.json of a pre-training run."""
    if not summary.get("epochs") or not isinstance(summary["epochs"], dict):
        return "Not described. The data and its licences are named by whoever publishes the model."
    rows = [f"| {source} | {passes:.2f} |" for source, passes in summary["epochs"].items()]
    return "\n".join(["| source | epochs |", "|---|---|", *rows, "", f"{summary['tokens']:,} tokens read in all."])


def hide_paths(text: str) -> str:
    """`text` (YAML) with every absolute path shortened to its last name, to keep local paths private."""
    lines = []
    for line in text.split("\n"):
        whole = re.match(r"""^(\s*(?:- )*(?:[\w.-]+: )?['"]?)(?:~|/)[^'"]*?([^/'"]+?)/?(['"]?)\s*$""", line)
        short = re.sub(r"""(?<![\w:/.~-])(?:~|/)(?:[^\s'",\]}/]*/)*([^\s/'",\]}]+)""", r".../\1", line)
        lines.append(f"{whole[1]}.../{whole[2]}{whole[3]}" if whole else short)
    return "\n".join(lines)


def without_paths(values: Any) -> Any:
    """The same JSON values with every absolute path shortened to its last name."""
    if isinstance(values, dict):
        return {key: without_paths(value) for key, value in values.items()}
    if isinstance(values, list):
        return [without_paths(value) for value in values]
    return f".../{Path(values).name}" if isinstance(values, str) and values.startswith(("/", "~")) else values


def _seeds(summary: dict[str, Any], run: Path) -> list[dict[str, Any]]:
    """The summaries of all seeds of a fine-tuning run, in order of seed: the folders beside `run` with its model and task."""
    if not re.fullmatch(r"seed-\d+", run.name):
        return [summary]
    found = [read_json(path) for path in run.parent.glob("seed-*/summary.json")]
    same = [
        other for other in found if all(other.get(key) == summary.get(key) for key in ("model", "task", "metric", "status"))
    ]
    return sorted(same, key=lambda other: other["seed"])


def _scores(summary: dict[str, Any], run: Path) -> str:
    """The scores of summary.json: for a task a table over seeds, for a pre-trained model those on held-out text."""
    if "test_score" in summary:
        seeds = _seeds(summary, run)
        rows = [f"| {s['seed']} | {100 * s['dev_score']:.1f} | {100 * s['test_score']:.1f} |" for s in seeds]
        said = f"{summary['task']}: {summary['metric']}. These weights are those of seed {summary['seed']}."
        if len(seeds) > 1:
            dev, test = ([100 * s[name] for s in seeds] for name in ("dev_score", "test_score"))
            rows.append(f"| mean ± sd | {mean(dev):.1f} ± {stdev(dev):.1f} | {mean(test):.1f} ± {stdev(test):.1f} |")
        else:
            said += " One run, so no interval."
        return "\n".join([said, "", "| seed | dev | test |", "|---|---|---|", *rows])
    heldout = summary.get("heldout") or {}
    if "bits_per_character" in heldout:
        return (
            f"Held-out text: {heldout['bits_per_character']:.3f} bits per character, loss {heldout['loss']:.3f} nats a masked "
            "token (15 % masked)."
        )
    return "Not measured."


def _use(kind: str | None, tokenizer: Tokenizer, languages: list[Language]) -> str:
    if kind is None:
        example = next((pack.example for pack in languages if pack.example), "A sentence with a {mask} in it.")
        code = (
            f'from transformers import pipeline\n\nfill = pipeline("fill-mask", "FOLDER_OR_ID")\n'
            f'print(fill("{example.format(mask=tokenizer.special_tokens[4])}"))'
        )
    else:
        name = f"AutoModel{kind_of(kind).transformers}"
        code = (
            f"from transformers import {name}, AutoTokenizer\n\n"
            f'tokenizer = AutoTokenizer.from_pretrained("FOLDER_OR_ID")\nmodel = {name}.from_pretrained("FOLDER_OR_ID")'
        )
    return f"```python\n{code}\n```"
