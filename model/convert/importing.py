"""Read Hugging Face folders: check config, weights and tokenizer and convert them to a checkpoint of this project.

`import_checkpoint` writes a checkpoint to a given place. `converted` does so once for a folder or hub://owner/name that is
used as a checkpoint directly, into HF_HOME/encoders, named by the digest of its content. The hub's state at first use is
kept (hub://owner/name@revision selects another), so a second run needs no network.
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

from common.code import code_files
from common.errors import UserError
from common.files import digest_of, read_json, refuse_pointer, sha256_file, write_json
from common.hub import HUB, home
from model.convert.families import DERIVED, FAMILIES, config_from_transformers, from_transformers, unknown_settings
from model.convert.foreign import FP32_ONLY, build_model, foreign_config, model_options, transformers_library
from model.convert.hub_checkpoints import download, parse
from model.encoder import Encoder, EncoderConfig
from model.folder import CONFIG, SUMS, WEIGHTS, write_checkpoint
from model.heads import TASK, TaskModel, has_pooler, is_pooled
from model.mlm import MaskedLM
from model.modern_head import add_modern_head
from model.next_sentence import NEXT_SENTENCE, THEIRS, head_of
from tasks.base import kind_of, known_kinds
from tokenization.loading import MODEL_FILES, VOCABULARY_FILE, load_tokenizer
from tokenization.tokenizer import JSON_FILE, Tokenizer

BIN = "pytorch_model.bin"
# Formats that are only named in the error when no other exists.
OTHERS = ("tf_model.h5", "flax_model.msgpack", "model.onnx", "*.gguf", "*.ckpt*")


def weight_files(folder: Path) -> list[Path]:
    """The files with a folder's weights: whole or sharded safetensors, otherwise the same in torch's own format.

    Raises UserError if there are none, if a shard is missing, and for an index that points outside the folder.
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
    """All weights of a Hugging Face folder under their own names. Pickled code is never run.

    Raises UserError for a damaged file, a .bin that holds more than tensors, a name in two shards, and an index whose names
    differ from those in the shards.
    """
    weights: dict[str, Tensor] = {}
    index = None
    for path in weight_files(folder):
        if path.suffix == ".json":
            index = path
            continue
        refuse_pointer(path)
        if path.suffix == ".safetensors":
            try:
                part = safetensors.torch.load_file(path)
            except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
                raise UserError(f"{path}: cannot be read ({error}). Download it again.") from None
        else:
            part = _read_bin(path)
        if twice := sorted(set(weights) & set(part)):
            raise UserError(f"{path}: {twice[0]} is in another shard too. Download the whole checkpoint again.")
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
            f"{path}: refused, because it holds more than tensors and reading it could run code ({reason}). Ask its author for "
            "model.safetensors, or take another checkpoint."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]}). Download it again.") from None
    if not isinstance(part, dict) or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in part.items()):
        raise UserError(f"{path}: expected weights by name, found something else. Save it with save_pretrained.")
    return dict(part)


def tidy(theirs: dict[str, Tensor], values: dict[str, Any], where: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under the names of current *For* models, in fp32, and the names of dropped weights.

    Old BERT files use gamma and beta; files of a bare encoder lack the model's prefix. Copies of tied weights are dropped
    after a check that they are copies; UserError if they are not, because our decoder is tied.
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
    copies = {
        "decoder.weight": prefix + word,
        "cls.predictions.decoder.weight": prefix + word,
        "lm_head.decoder.weight": prefix + word,
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "lm_head.decoder.bias": "lm_head.bias",
    }
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
    """Convert the Hugging Face folder `folder` to a checkpoint at `out`; returns notes to print.

    `foreign`: use transformers' code (convert/foreign.py) for any architecture. Raises UserError: a missing or damaged file,
    an unknown architecture or setting, weights that do not fit, an unknown tokenizer format.
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
    odd = unknown_settings(values)
    notes = [f"settings of {CONFIG} that are unknown and not used: {', '.join(odd)}"] if odd else []
    if family == "modernbert" and "head.dense.weight" in weights and values.get("decoder_bias") is False:
        weights.setdefault("decoder.bias", torch.zeros(config.vocab_size))
    task, model = _model_of(folder, values, config, weights, notes)
    kind = None if task is None else task["kind"]
    wanted = model.state_dict()
    files: dict[str, Any] = {} if task is None else {TASK: task}
    if relation is not None and task is None and "encoder.pooler.weight" in wanted:
        files[NEXT_SENTENCE] = partial(safetensors.torch.save_file, relation)
        ignored = [name for name in ignored if name not in THEIRS.values()]
        notes.append("next-sentence head (cls.seq_relationship) kept: next-sentence tasks get a row without training")
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
    """(task.json of a fine-tuned checkpoint or None, a model on the meta device with the weights we want)."""
    architecture = (values.get("architectures") or [""])[0]
    kind = kind_in(folder, values, architecture)
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
        suffixes = [kind_of(kind).transformers for kind in known_kinds()]
        if not architecture.endswith(("ForMaskedLM", "ForPreTraining", "Model", "ForNextSentencePrediction")) and architecture:
            raise UserError(
                f"{folder / CONFIG}: architectures={architecture} is not supported. Supported: *Model, *ForPreTraining, "
                f"*ForMaskedLM, {', '.join(dict.fromkeys(f'*{suffix}' for suffix in suffixes if suffix))}."
            )
        model = MaskedLM(config)
        if any(name.endswith("pooler.dense.weight") for name in weights):
            model.encoder = Encoder(config, pooler=True)
        if not any(name.startswith(("cls.predictions.", "lm_head.", "head.", "decoder.")) for name in weights):
            notes.append("no masked-LM head in it: for fine-tuning only (fill_mask, heldout and start_from refuse it)")
            model = torch.nn.ModuleDict({"encoder": model.encoder})
    return None, model


def kind_in(folder: Path, values: dict[str, Any], architecture: str) -> str | None:
    """The kind of task that a folder's model was fine-tuned for, or None. One label means regression, as in transformers.
    Raises UserError for a problem_type that no kind has."""
    kinds = [kind for kind in known_kinds() if architecture.endswith(kind_of(kind).transformers or "no class")]
    if not kinds:
        return None
    problem = values.get("problem_type") or ("regression" if len(values.get("id2label") or "ab") == 1 else None)
    known = {kind_of(kind).problem_type: kind for kind in reversed(kinds)}
    if problem is None:
        return kinds[0] if len(known) == 1 else known["single_label_classification"]
    if problem not in known and len(known) > 1:
        raise UserError(f"{folder / CONFIG}: problem_type={problem} is not supported (supported: {', '.join(known)}).")
    return known.get(problem, kinds[0])


def task_of(folder: Path, values: dict[str, Any], kind: str) -> dict[str, Any]:
    """task.json of a fine-tuned Hugging Face folder: ours if export stored it there, otherwise from config.json."""
    if (folder / TASK).exists():
        task = read_json(folder / TASK)
        if isinstance(task, dict) and task.get("kind") in known_kinds() and {"labels", "pooling"} <= set(task):
            return task
        raise UserError(f"{folder / TASK}: not a task.json of ours. Restore or remove it.")
    labels, own = None, kind_of(kind)
    if own.names_from is not None:
        names = values.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
        if sorted(names, key=int) != [str(n) for n in range(len(names))] and sorted(names) != list(range(len(names))):
            raise UserError(f"{folder / CONFIG}: id2label does not number its labels 0, 1, 2, ... Restore the file.")
        labels = [names[key] for key in sorted(names, key=int)]
    modern = values["model_type"] == "modernbert"
    pooling = values.get("classifier_pooling", "cls") if modern else "pooler"
    return {
        "kind": kind,
        "labels": labels,
        "max_length": own.max_length,
        "task": folder.name,
        "metric": "accuracy" if "accuracy" in own.metrics else own.metrics[0],
        "positive": None,
        "window_overlap_tokens": None,
        "pooling": pooling if is_pooled(kind) else "pooler",
        **own.imported,
    }


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    If it has neither tokenizer.json nor vocab.txt (XLM-R's and mDeBERTa's sentencepiece models, RoBERTa's vocab.json with
    merges.txt), transformers makes the tokenizer.json, because only it knows how each class renumbers its tokens.
    """
    if any((folder / name).exists() for name in (JSON_FILE, VOCABULARY_FILE)):
        return load_tokenizer(folder)
    if not any((folder / name).exists() for name in (*MODEL_FILES, "vocab.json")):
        raise UserError(f"{folder}: no tokenizer there ({JSON_FILE}, {VOCABULARY_FILE}, a .model, vocab.json). Add its files.")
    try:
        import transformers
    except ImportError:
        raise UserError(
            f"{folder}: no {JSON_FILE}; making one from its files needs transformers. pip install -r requirements-dev.txt, or "
            f"add the {JSON_FILE}."
        ) from None
    made = folder_of_cache() / f".tokenizer.{os.getpid()}"
    try:
        try:
            transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False).save_pretrained(made)
        except Exception as error:  # any error from a broken file or a class without a fast tokenizer
            raise UserError(
                f"{folder}: transformers cannot make a tokenizer from its files ({error}). Add its {JSON_FILE}."
            ) from None
        return load_tokenizer(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def convert_foreign(
    folder: Path, out: Path, name: str, values: dict[str, Any], tokenizer: Tokenizer, source: dict[str, Any]
) -> list[str]:
    """Write the checkpoint of a foreign encoder at `out`; returns notes to print.

    Raises UserError as foreign_config and read_weights do, and for missing weights.
    """
    config = foreign_config(values, tokenizer, folder / CONFIG)
    check_vocabulary(tokenizer, config, folder)
    library = transformers_library()
    theirs = library.AutoConfig.for_model(**config.transformers)
    try:  # transformers renames old names and prefixes; the weights are read by us, so nothing is unpickled there
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
    notes = [f"{family}: run by transformers {library.__version__} as a baseline encoder; it can only be fine-tuned"]
    if family in FP32_ONLY:
        notes.append(f"{family}: kept in fp32")
    if left:
        notes.append(f"not used: {', '.join(left)}")
    write_checkpoint(out, ours, config, tokenizer, {"name": name, "source": {"family": family, **source}})
    return notes


def check_vocabulary(tokenizer: Tokenizer, config: EncoderConfig, folder: Path) -> None:
    """UserError for a tokenizer with more tokens than the embeddings have rows."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model's embeddings {config.vocab_size} rows: it "
            "is another model's tokenizer. Put the right files there."
        )


# ---------------------------------------------------------------- checkpoints that are given directly


def is_huggingface(path: str | Path) -> bool:
    """Whether `path` is a hub:// address or a Hugging Face folder (config.json with a model_type, no checksums.json)."""
    if str(path).startswith(HUB):
        return True
    config = Path(path) / CONFIG
    if not config.is_file() or (Path(path) / SUMS).exists():
        return False
    values = read_json(config)
    return isinstance(values, dict) and "model_type" in values


def import_checkpoint(source: str, out: str | Path, name: str | None = None, foreign: bool = False) -> list[str]:
    """Convert a Hugging Face folder or hub://owner/name[@revision] into the checkpoint `out`; returns notes to print."""
    if (Path(out) / SUMS).exists() or (Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir()))):
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
    if source.startswith(HUB):
        folder, place = download(source)
        return convert(folder, Path(out), name or place["repository"].split("/")[-1], foreign, place)
    if not (Path(source) / CONFIG).is_file():
        raise UserError(
            f"{source}: no {CONFIG} there. Give a Hugging Face model's folder, or {HUB}owner/name for one on the hub."
        )
    return convert(Path(source), Path(out), name or Path(source).resolve().name, foreign)


def folder_of_cache() -> Path:
    """The cache of converted checkpoints: HF_HOME/encoders."""
    return home() / "encoders"


def code_of_conversion() -> str:
    """Digest of the code that determines a conversion; if it changes, the conversion is made again."""
    return digest_of(
        code_files(
            "model.convert.importing",
            "model.convert.families",
            "model.convert.foreign",
            "tokenization.loading",
            rooms=("tokenization",),
        )
    )


def converted(source: str | Path) -> Path:
    """The converted checkpoint of a Hugging Face folder or hub:// address; it is converted at first use.

    Raises UserError as `convert` and `model.convert.hub_checkpoints.download` do.
    """
    cache = folder_of_cache()
    if str(source).startswith(HUB):
        repository, revision = parse(str(source))
        pin = cache / "pins" / f"{repository.replace('/', '--')}@{(revision or 'main').replace('/', '--')}.json"
        held = read_json(pin) if pin.exists() else {}
        if held.get("version") == code_of_conversion() and (cache / held["key"] / SUMS).exists():
            return cache / held["key"]
        # A conversion by an older version of this code is made again, from the same commit.
        folder, place = download(f"{HUB}{repository}@{held['commit']}" if held else str(source))
        place["revision"] = revision or "main"
        key = _keep(folder, repository.split("/")[-1], place)
        write_json(pin, {"key": key, "version": code_of_conversion(), **place})
        return cache / key
    return cache / _keep(Path(source), Path(source).resolve().name, None)


def _keep(folder: Path, name: str, place: dict[str, Any] | None) -> str:
    """Convert `folder` into the cache under the digest of its content and name; returns the digest."""
    others = (
        CONFIG,
        TASK,
        JSON_FILE,
        VOCABULARY_FILE,
        *MODEL_FILES,
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    )
    files = [*weight_files(folder), *(folder / other for other in others if (folder / other).exists())]
    key = digest_of([code_of_conversion(), name, {path.name: sha256_file(path) for path in files}])[:32]
    out = folder_of_cache() / key
    if not (out / SUMS).exists():
        beside = out.with_name(f"{key}.{os.getpid()}")  # several processes of one run may convert: the first to finish wins
        try:
            for note in convert(folder, beside, name, source=place):
                print(f"{name}: {note}")
            if not out.exists():
                beside.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return key
