"""Hugging Face folders read: config, weights and tokenizer checked and turned into a checkpoint of ours.

`import_checkpoint` writes one where it is told to; `converted` does so once for a folder or hub://owner/name that is given
as a checkpoint directly, into HF_HOME/encoders, under the digest of the content. What the hub had at first use stays in use
(hub://owner/name@revision asks for another state), so a second run needs no network.
"""

import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from common.errors import UserError
from common.files import digest_of, read_json, sha256_file, write_json
from common.hub import HUB, home
from data.task_records import KINDS
from model.encoder import Encoder, EncoderConfig
from model.families import DERIVED, FAMILIES, SUFFIXES, config_from_transformers, from_transformers
from model.folder import CONFIG, SUMS, WEIGHTS, write_checkpoint
from model.foreign import FP32_ONLY, build_model, foreign_config, model_options, transformers_library
from model.heads import POOLED, TASK, TaskModel, has_pooler
from model.hub import download, parse
from model.mlm import MaskedLM
from model.modern_head import add_modern_head
from model.next_sentence import NEXT_SENTENCE, THEIRS, head_of
from tokenization.loading import MODEL_FILES, VOCABULARY_FILE, load_tokenizer
from tokenization.tokenizer import JSON_FILE, Tokenizer

VERSION = 2  # of the conversion: a change that changes results makes every cached conversion be made anew
BIN = "pytorch_model.bin"
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "*.gguf", "*.ckpt*")  # formats that are named when nothing else is


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: whole or sharded safetensors, else the same of torch's own format.

    Raises UserError where there is none, where a shard is missing, and for an index that points out of the folder.
    """
    for whole in (WEIGHTS, BIN):
        if (folder / whole).exists():
            return [folder / whole]
        index = folder / f"{whole}.index.json"
        if not index.exists():
            continue
        table = read_json(index)
        named = table.get("weight_map") if isinstance(table, dict) else None
        if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
            raise UserError(f"{index}: no weight_map of file names in it. Download it again.")
        names = sorted(set(named.values()))
        for name in names:
            if not name or name != Path(name).name:
                raise UserError(f"{index}: {name!r} is not the name of a file beside it. Restore the file.")
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: missing, and {index.name} names it. Download the whole checkpoint.")
        return [index, *(folder / name for name in names)]
    there = sorted(path.name for pattern in OTHERS for path in folder.glob(pattern))
    found = f"only {', '.join(there)}" if there else "no weights"
    raise UserError(
        f"{folder}: {found} there. Expected {WEIGHTS} or {BIN}, whole or in shards with an index; save it so with "
        "transformers' save_pretrained."
    )


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a Hugging Face folder by their own names. Nothing is unpickled that could run code.

    Raises UserError for a damaged file, a .bin with more than tensors in it, a name that stands in two shards, and an index
    that lists other names than the shards hold.
    """
    weights: dict[str, Tensor] = {}
    index = None
    for path in weight_files(folder):
        if path.suffix == ".json":
            index = path
            continue
        if path.suffix == ".safetensors":
            try:
                part = safetensors.torch.load_file(path)
            except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
                raise UserError(f"{path}: cannot be read ({error}). Download it again.") from None
        else:
            part = _read_bin(path)
        if twice := sorted(set(weights) & set(part)):
            raise UserError(f"{path}: {twice[0]} stands in another shard too. Download the whole checkpoint again.")
        weights |= part
    if index is not None and (odd := sorted(set(weights) ^ set(read_json(index)["weight_map"]))):
        raise UserError(f"{index}: it and the shards do not list the same weights ({odd[0]}). Download them again.")
    return weights


def _read_bin(path: Path) -> dict[str, Tensor]:
    try:
        part = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{path}: refused, for it holds more than tensors and reading it could run code ({reason}). Ask its author for "
            "model.safetensors, or take another checkpoint."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}). Download it again.") from None
    if not isinstance(part, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in part.items()):
        raise UserError(f"{path}: expected weights by name, found something else. Save it with save_pretrained.")
    return dict(part)


def tidy(theirs: dict[str, Tensor], values: dict[str, Any], where: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the names of today's *For* models, in fp32, and the names that were left out.

    Old BERT files say gamma and beta; files of a bare encoder lack the model's prefix. Copies of tied weights are left out
    once they are seen to be copies; UserError where they are not, for our decoder is tied.
    """
    family = values["model_type"]
    prefix = {"bert": "bert.", "modernbert": "model."}.get(family, "roberta.")
    word = "embeddings.tok_embeddings.weight" if family == "modernbert" else "embeddings.word_embeddings.weight"
    bare = word in theirs
    named: dict[str, Tensor] = {}
    for name, value in theirs.items():
        new = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        new = prefix + new if bare else new
        if not value.is_floating_point() and not DERIVED.search(new):
            raise UserError(f"{where}: {name} is {value.dtype}: quantised weights are not read. Take the whole checkpoint.")
        named[new] = value
    copies = {"decoder.weight": prefix + word, "cls.predictions.decoder.weight": prefix + word,
              "lm_head.decoder.weight": prefix + word, "cls.predictions.decoder.bias": "cls.predictions.bias",
              "lm_head.decoder.bias": "lm_head.bias"}  # fmt: skip
    for copy, original in copies.items():
        if copy not in named:
            continue
        if original not in named and copy.endswith(".bias"):
            named[original] = named[copy]
        if original in named and not torch.equal(named[copy], named[original]):
            raise UserError(
                f"{where}: {copy} differs from {original}, so its decoder is not tied; ours is. Take a checkpoint with "
                "tie_word_embeddings=true, or load it as a baseline with --foreign."
            )
    has_decoder = any(copy in named for copy in copies if copy.endswith("weight"))
    has_head = any(name.startswith(("cls.predictions.", "lm_head.", "decoder.")) for name in named)
    if values.get("tie_word_embeddings") is False and has_head and not has_decoder:
        raise UserError(f"{where}: tie_word_embeddings=false, but the decoder's weights are not there. Download it again.")
    used = "decoder.bias" if family == "modernbert" else ""
    left = {name for name in named if DERIVED.search(name) and name != used}
    return {name: value.float() for name, value in named.items() if name not in left}, sorted(left - set(copies))


def convert(folder: Path, out: Path, name: str, foreign: bool = False, source: dict[str, Any] | None = None) -> list[str]:
    """Write the checkpoint at `out` that the Hugging Face folder `folder` comes to; returns what is to be said about it.

    `foreign`: run by transformers' code (model/foreign.py) whatever its architecture. Raises UserError: a file is missing or
    damaged, an architecture or a setting that is not known, weights that do not fit, a tokenizer that is none of theirs.
    """
    values = read_json(folder / CONFIG)
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise UserError(
            f"{folder / CONFIG}: no model_type in it, so it is no Hugging Face config. Give the model's own folder."
        )
    family = values["model_type"]
    if foreign or family not in FAMILIES:
        return convert_foreign(folder, out, name, values, read_tokenizer(folder), source or {})
    config = config_from_transformers(values, str(folder / CONFIG))
    theirs = read_weights(folder)
    relation = head_of(theirs, config.hidden_size, folder)
    weights, ignored = tidy(theirs, values, folder)
    notes = []
    if family == "modernbert" and "head.dense.weight" in weights and values.get("decoder_bias") is False:
        weights.setdefault("decoder.bias", torch.zeros(config.vocab_size))
    task, model = _model_of(folder, values, config, weights, notes)
    kind = None if task is None else task["kind"]
    wanted = model.state_dict()
    files: dict[str, Any] = {} if task is None else {TASK: task}
    if relation is not None and task is None and "encoder.pooler.weight" in wanted:
        files[NEXT_SENTENCE] = partial(safetensors.torch.save_file, relation)
        ignored = [name for name in ignored if name not in THEIRS.values()]
        notes.append("next-sentence head (cls.seq_relationship) kept: tasks that ask what follows get a row without training")
    if ignored:
        notes.insert(0, f"not used: {', '.join(ignored)}")
    try:
        ours = from_transformers(weights, config, family, set(wanted), kind)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    shapes = {name: (list(ours[name].shape), list(value.shape)) for name, value in wanted.items()}
    if odd := [f"{name}: {there}, config.json says {said}" for name, (there, said) in shapes.items() if there != said]:
        raise UserError(f"{folder}: weights of another shape ({'; '.join(odd[:3])}). Take the config.json saved with them.")
    tokenizer = read_tokenizer(folder)
    check_vocabulary(tokenizer, config, folder)
    before = values.get("ours") or {}
    extra = {key: value for key, value in before.items() if key not in ("encoder", "tokenizer")} or {"name": name}
    extra["source"] = {"family": family, **(source or before.get("source") or {})}
    write_checkpoint(out, ours, config, tokenizer, extra, files)
    return notes


def _model_of(
    folder: Path, values: dict[str, Any], config: EncoderConfig, weights: dict[str, Tensor], notes: list[str]
) -> tuple[dict[str, Any] | None, torch.nn.Module]:
    """(task.json of a fine-tuned checkpoint or None, a model without memory that has the weights we want)."""
    architecture = (values.get("architectures") or [""])[0]
    kind = next((kind for kind, suffix in SUFFIXES.items() if architecture.endswith(suffix)), None)
    with torch.device("meta"):
        if kind is not None:
            task = task_of(folder, values, kind)
            pooling = task["pooling"] or "pooler"
            model = TaskModel(
                Encoder(config, pooler=has_pooler(task["kind"], pooling)), task["kind"], len(task["labels"] or []), pooling
            )
            if config.architecture == "modern":
                add_modern_head(model)
            if not has_pooler(task["kind"], pooling):
                for name in [name for name in weights if ".pooler." in name]:
                    notes.append(f"not used: {name}")
                    del weights[name]
            return task, model
        if not architecture.endswith(("ForMaskedLM", "ForPreTraining", "Model", "ForNextSentencePrediction")) and architecture:
            raise UserError(
                f"{folder / CONFIG}: architectures={architecture} is not supported. Supported: *Model, *ForPreTraining, "
                f"*ForMaskedLM, {', '.join('*' + suffix for suffix in dict.fromkeys(SUFFIXES.values()))}."
            )
        model = MaskedLM(config)
        if any(name.endswith("pooler.dense.weight") for name in weights):
            model.encoder = Encoder(config, pooler=True)
        if not any(name.startswith(("cls.predictions.", "lm_head.", "head.", "decoder.")) for name in weights):
            notes.append("no masked-LM head in it: for fine-tuning only (fill_mask, heldout and start_from refuse it)")
            model = torch.nn.ModuleDict({"encoder": model.encoder})
    return None, model


def task_of(folder: Path, values: dict[str, Any], kind: str) -> dict[str, Any]:
    """task.json of a fine-tuned Hugging Face folder: ours if export left it there, else what config.json tells."""
    if (folder / TASK).exists():
        task = read_json(folder / TASK)
        if isinstance(task, dict) and task.get("kind") in KINDS and {"labels", "pooling"} <= set(task):
            return task
        raise UserError(f"{folder / TASK}: not a task.json of ours. Restore or remove it.")
    problem = values.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise UserError(f"{folder / CONFIG}: problem_type={problem} is not supported (supported: single_label_classification).")
    labels = None
    if kind in ("classification", "tagging"):
        names = values.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        if sorted(names, key=int) != [str(n) for n in range(len(names))] and sorted(names) != list(range(len(names))):
            raise UserError(f"{folder / CONFIG}: id2label does not number its labels 0, 1, 2, ... Restore the file.")
        labels = [names[key] for key in sorted(names, key=int)]
        if len(labels) < 2:
            raise UserError(f"{folder / CONFIG}: one label only, so it is a regression, which is not supported.")
    modern = values["model_type"] == "modernbert"
    pooling = values.get("classifier_pooling", "cls") if modern else "pooler"
    metrics = {"tagging": "entity_f1", "qa": "f1"}
    return {
        "kind": kind, "labels": labels, "max_length": 384 if kind == "qa" else 128, "task": folder.name,
        "metric": metrics.get(kind, "accuracy"), "positive": None, "window_overlap_tokens": None,
        "pooling": pooling if kind in POOLED else "pooler", "allow_no_answer": False,
    }  # fmt: skip


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Where it has neither tokenizer.json nor vocab.txt (XLM-R's and mDeBERTa's sentencepiece models, RoBERTa's vocab.json with
    merges.txt), transformers makes the tokenizer.json, for it alone knows how each class renumbers its pieces.
    """
    if any((folder / name).exists() for name in (JSON_FILE, VOCABULARY_FILE)):
        return load_tokenizer(folder)
    if not any((folder / name).exists() for name in (*MODEL_FILES, "vocab.json")):
        raise UserError(f"{folder}: no tokenizer there ({JSON_FILE}, {VOCABULARY_FILE}, a .model, vocab.json). Add its files.")
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"{folder}: no {JSON_FILE}; making one of its files needs transformers. pip install -r requirements-extra.txt, or "
            f"add the {JSON_FILE}."
        ) from None
    made = folder_of_cache() / f".tokenizer.{os.getpid()}"
    try:
        try:
            transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(made)
        except Exception as error:  # whatever a broken file or a class without a fast tokenizer comes to over there
            raise UserError(f"{folder}: transformers makes no tokenizer of its files ({error}). Add its {JSON_FILE}.") from None
        return load_tokenizer(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def convert_foreign(
    folder: Path, out: Path, name: str, values: dict[str, Any], tokenizer: Tokenizer, source: dict[str, Any]
) -> list[str]:
    """Write the checkpoint of a foreign encoder at `out`; returns what is to be said about it.

    Raises UserError as foreign_config and read_weights do, and for weights that the architecture misses.
    """
    config = foreign_config(values, tokenizer, folder / CONFIG)
    check_vocabulary(tokenizer, config, folder)
    library = transformers_library()
    theirs = library.AutoConfig.for_model(**config.transformers)
    try:  # its own renaming of old names and prefixes; the weights were read by us, so nothing is unpickled over there
        weights = {key: value.float() if value.is_floating_point() else value for key, value in read_weights(folder).items()}
        model, info = type(build_model(theirs)).from_pretrained(
            None, config=theirs, state_dict=weights, output_loading_info=True, dtype=torch.float32, **model_options(theirs)
        )
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UserError(f"{folder}: transformers cannot load these weights ({reason[0] if reason else error!r}).") from None
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing or info.get("mismatched_keys"):
        shapes = sorted(str(item) for item in info.get("mismatched_keys") or [])
        raise UserError(
            f"{folder}: the checkpoint does not fit a {theirs.model_type}: missing {', '.join(missing[:5]) or 'nothing'}; "
            f"other shape {', '.join(shapes[:3]) or 'none'}. Take a whole checkpoint with its own config.json."
        )
    ours = {f"encoder.model.{key}": value for key, value in model.state_dict().items()}
    left = sorted(info["unexpected_keys"])
    family = config.transformers["model_type"]
    notes = [f"{family}: run by transformers {library.__version__} as a baseline encoder; it can be fine-tuned, no more"]
    if family in FP32_ONLY:
        notes.append(f"{family}: kept in fp32")
    if left:
        notes.append(f"not used: {', '.join(left)}")
    write_checkpoint(out, ours, config, tokenizer, {"name": name, "source": {"family": family, **source}})
    return notes


def check_vocabulary(tokenizer: Tokenizer, config: EncoderConfig, folder: Path) -> None:
    """UserError for a tokenizer with more pieces than the embeddings have rows."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} pieces, the model's embeddings {config.vocab_size} rows: it "
            "is another model's tokenizer. Put the right files there."
        )


# ---------------------------------------------------------------- checkpoints that are given directly


def is_huggingface(path: str | Path) -> bool:
    """Whether `path` is a hub:// address or a Hugging Face folder (config.json with a model_type, no checksums of ours)."""
    if str(path).startswith(HUB):
        return True
    config = Path(path) / CONFIG
    if not config.is_file() or (Path(path) / SUMS).exists():
        return False
    values = read_json(config)
    return isinstance(values, dict) and "model_type" in values


def import_checkpoint(source: str, out: str | Path, name: str | None = None, foreign: bool = False) -> list[str]:
    """Convert a Hugging Face folder or hub://owner/name[@revision] into the checkpoint `out`; returns what to say about it."""
    if (Path(out) / SUMS).exists() or (Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir()))):
        raise UserError(f"{out}: is there already. Give another folder, or remove it first.")
    if source.startswith(HUB):
        folder, place = download(source)
        return convert(folder, Path(out), name or place["repository"].split("/")[-1], foreign, place)
    if not (Path(source) / CONFIG).is_file():
        raise UserError(
            f"{source}: no {CONFIG} there. Give a Hugging Face model's folder, or {HUB}owner/name for one on the hub."
        )
    return convert(Path(source), Path(out), name or Path(source).resolve().name, foreign)


def folder_of_cache() -> Path:
    """Where converted checkpoints are kept: HF_HOME/encoders."""
    return home() / "encoders"


def converted(source: str | Path) -> Path:
    """The checkpoint folder that a Hugging Face folder or hub:// address comes to, converted unless it is there already.

    Raises UserError as `convert` and `model.hub.download` do.
    """
    cache = folder_of_cache()
    if str(source).startswith(HUB):
        repository, revision = parse(str(source))
        pin = cache / "pins" / f"{repository.replace('/', '--')}@{(revision or 'main').replace('/', '--')}.json"
        held = read_json(pin) if pin.exists() else {}
        if held.get("version") == VERSION and (cache / held["key"] / SUMS).exists():
            return cache / held["key"]
        # A conversion of an older version of this code is made anew, of the same commit.
        folder, place = download(f"{HUB}{repository}@{held['commit']}" if held else str(source))
        place["revision"] = revision or "main"
        key = _keep(folder, repository.split("/")[-1], place)
        write_json(pin, {"key": key, "version": VERSION, **place})
        return cache / key
    return cache / _keep(Path(source), Path(source).resolve().name, None)


def _keep(folder: Path, name: str, place: dict[str, Any] | None) -> str:
    """Convert `folder` into the cache under the digest of its content and name; returns the digest."""
    others = (CONFIG, TASK, JSON_FILE, VOCABULARY_FILE, *MODEL_FILES, "tokenizer_config.json", "special_tokens_map.json",
              "added_tokens.json", "vocab.json", "merges.txt")  # fmt: skip
    files = [*weight_files(folder), *(folder / other for other in others if (folder / other).exists())]
    key = digest_of([VERSION, name, {path.name: sha256_file(path) for path in files}])[:32]
    out = folder_of_cache() / key
    if not (out / SUMS).exists():
        beside = out.with_name(f"{key}.{os.getpid()}")  # processes of one run may all convert: the first to finish stays
        try:
            for note in convert(folder, beside, name, source=place):
                print(f"{name}: {note}")
            if not out.exists():
                beside.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return key
