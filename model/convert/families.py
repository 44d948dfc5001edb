"""Weights and configs between this project and transformers: BERT, RoBERTa / XLM-RoBERTa and ModernBERT, with their heads.

Every weight is accounted for: a missing or unknown one is an error with its name, never a silent random initialisation. A
config that our encoders cannot follow is an error too. The folders are read and written in `importing` and `export`.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from model.encoder import EncoderConfig
from model.heads import head_of
from tasks.base import kind_of

FAMILIES = ("bert", "roberta", "xlm-roberta", "modernbert")  # model_type of config.json; mBERT is a bert, mmBERT a modernbert
SUPPORTED = "bert (mBERT too), roberta, xlm-roberta and modernbert (mmBERT too)"
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "modernbert": "ModernBert"}

# Ours -> theirs. {n} is the number of the block. Query, key and value are one matrix here and three in BERT's files.
BERT = {
    "encoder.token_embeddings.weight": "bert.embeddings.word_embeddings.weight",
    "encoder.position_embeddings.weight": "bert.embeddings.position_embeddings.weight",
    "encoder.token_type_embeddings.weight": "bert.embeddings.token_type_embeddings.weight",
    "encoder.embedding_norm": "bert.embeddings.LayerNorm",
    "encoder.blocks.{n}.qkv": (
        "bert.encoder.layer.{n}.attention.self.query",
        "bert.encoder.layer.{n}.attention.self.key",
        "bert.encoder.layer.{n}.attention.self.value",
    ),
    "encoder.blocks.{n}.attention_out": "bert.encoder.layer.{n}.attention.output.dense",
    "encoder.blocks.{n}.attention_norm": "bert.encoder.layer.{n}.attention.output.LayerNorm",
    "encoder.blocks.{n}.mlp_in": "bert.encoder.layer.{n}.intermediate.dense",
    "encoder.blocks.{n}.mlp_out": "bert.encoder.layer.{n}.output.dense",
    "encoder.blocks.{n}.mlp_norm": "bert.encoder.layer.{n}.output.LayerNorm",
    "encoder.pooler": "bert.pooler.dense",
    "head.dense": "cls.predictions.transform.dense",
    "head.norm": "cls.predictions.transform.LayerNorm",
    "head.bias": "cls.predictions.bias",
}
ROBERTA = {ours: theirs for ours, theirs in BERT.items()} | {
    "head.dense": "lm_head.dense",
    "head.norm": "lm_head.layer_norm",
    "head.bias": "lm_head.bias",
}
MODERNBERT = {
    "encoder.token_embeddings.weight": "model.embeddings.tok_embeddings.weight",
    "encoder.embedding_norm": "model.embeddings.norm",
    "encoder.blocks.{n}.attention_norm": "model.layers.{n}.attn_norm",
    "encoder.blocks.{n}.qkv": "model.layers.{n}.attn.Wqkv",
    "encoder.blocks.{n}.attention_out": "model.layers.{n}.attn.Wo",
    "encoder.blocks.{n}.mlp_norm": "model.layers.{n}.mlp_norm",
    "encoder.blocks.{n}.mlp_in": "model.layers.{n}.mlp.Wi",
    "encoder.blocks.{n}.mlp_out": "model.layers.{n}.mlp.Wo",
    "encoder.final_norm": "model.final_norm",
    "head.dense": "head.dense",
    "head.norm": "head.norm",
    "head.bias": "decoder.bias",
}
# Task heads, by the suffix of transformers' class. BERT's classes read its pooler; RoBERTa's have their own equivalent dense
# layer; every head of ModernBERT is the masked-LM head's dense layer, GELU and norm before the linear one
# (model/modern_head.py).
_POOLED = {"encoder.pooler": "bert.pooler.dense", "head": "classifier"}
_TOKENS = {"ForTokenClassification": {"head": "classifier"}, "ForQuestionAnswering": {"head": "qa_outputs"}}
_ROBERTA = {"encoder.pooler": "classifier.dense", "head": "classifier.out_proj"}
_MODERN = {"head.dense": "head.dense", "head.norm": "head.norm", "head.out": "classifier"}
HEADS = {
    "bert": {"ForSequenceClassification": _POOLED, "ForMultipleChoice": _POOLED, **_TOKENS},
    "roberta": {
        "ForSequenceClassification": _ROBERTA,
        "ForMultipleChoice": {"encoder.pooler": "roberta.pooler.dense", "head": "classifier"},
        **_TOKENS,
    },
}
# Buffers and copies of tied weights in their files, which contain nothing new.
DERIVED = re.compile(r"position_ids$|token_type_ids$|decoder\.(weight|bias)$|seq_relationship\.|inv_freq$")


def _table(family: str, kind: str | None) -> dict[str, Any]:
    """Ours -> theirs of a masked-LM model, or of a task model of this kind."""
    if family not in FAMILIES:
        raise UserError(f"model type {family!r}: known are {SUPPORTED}.")
    table = {"bert": BERT, "modernbert": MODERNBERT}.get(family, ROBERTA)
    if family in ("roberta", "xlm-roberta"):
        table = {ours: _renamed(theirs) for ours, theirs in table.items()}
    if kind is None:
        return table
    suffix = kind_of(kind).transformers
    heads = _MODERN if family == "modernbert" else HEADS["roberta" if family == "xlm-roberta" else family][suffix]
    return {ours: theirs for ours, theirs in table.items() if not ours.startswith(("head.", "encoder.pooler"))} | heads


def _renamed(theirs: Any) -> Any:
    if isinstance(theirs, tuple):
        return tuple(map(_renamed, theirs))
    return re.sub(r"^bert\.", "roberta.", theirs)


def _expand(config: EncoderConfig, family: str, kind: str | None = None) -> dict[str, str | tuple[str, ...]]:
    """All pairs of full names for an encoder with this many layers, weights and biases separately."""
    pairs: dict[str, str | tuple[str, ...]] = {}
    for ours, theirs in _table(family, kind).items():
        for n in range(config.layers) if "{n}" in ours else [None]:
            for part in [""] if ours.endswith((".weight", "head.bias")) else [".weight", ".bias"]:

                def full(name: str, n: int | None = n, part: str = part) -> str:
                    return (name if n is None else name.replace("{n}", str(n))) + part

                pairs[full(ours)] = tuple(map(full, theirs)) if isinstance(theirs, tuple) else full(theirs)
    return pairs


def from_transformers(
    theirs: dict[str, Tensor], config: EncoderConfig, family: str, wanted: set[str], kind: str | None = None
) -> dict[str, Tensor]:
    """Our state dict with the names `wanted`, from a transformers one of a masked-LM model or (`kind`) a task model.

    Raises UserError naming every weight that is missing or unused.
    """
    ours, used, missing = {}, set(), []
    for name, source in _expand(config, family, kind).items():
        names = source if isinstance(source, tuple) else (source,)
        if all(part in theirs for part in names):
            used.update(names)
            if name in wanted:
                ours[name] = torch.cat([theirs[part] for part in names])
        elif name in wanted:
            missing += [part for part in names if part not in theirs]
    extra = [name for name in theirs if name not in used and not DERIVED.search(name)]
    if missing or extra:
        raise UserError(
            f"the checkpoint does not fit a {family} of {config.layers} layers: "
            f"missing {_listed(missing)}; not known {_listed(extra)}. Take a whole checkpoint with its own config.json."
        )
    return ours


def _listed(names: Sequence[str]) -> str:
    """The first five names, and the number of the others."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "nothing") + more


def to_transformers(ours: dict[str, Tensor], config: EncoderConfig, family: str, kind: str | None = None) -> dict[str, Tensor]:
    """A transformers state dict of the same weights; the tied decoder is omitted, since it equals the word embeddings.

    Raises UserError for weights without a name in files of this family.
    """
    theirs, pairs = {}, _expand(config, family, kind)
    if left := sorted(set(ours) - set(pairs)):
        raise UserError(f"these weights have no name in a {family} file: {_listed(left)}.")
    for name, value in ours.items():
        target = pairs[name]
        names = target if isinstance(target, tuple) else (target,)
        for part, share in zip(names, value.chunk(len(names)), strict=True):
            theirs[part] = share.clone()
    return theirs


def check_config(values: dict[str, Any], where: str) -> None:
    """UserError for a config.json of one of FAMILIES with a setting that our encoders lack, naming key and value."""
    family = values["model_type"]
    modern = family == "modernbert"
    for key in (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ):
        if type(values.get(key)) is not int or values[key] < 1:
            raise UserError(f"{where}: {key}={values.get(key)!r}, expected a whole number above 0. Restore the file.")
    # "gelu_python" is the same exact function under an older name; the tanh approximations (gelu_new) are not.
    exact = ("gelu", "gelu_python")
    allowed: dict[str, tuple[Any, ...]] = {
        "is_decoder": (False, None),
        "add_cross_attention": (False, None),
        "is_encoder_decoder": (False, None),
        "auto_map": (None,),
        "quantization_config": (None,),
        "pruned_heads": ({}, None),
    }
    if modern:
        allowed |= {"hidden_activation": (*exact, None), "classifier_activation": (*exact, None)}
        allowed |= {key: (False, None) for key in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")}
        allowed |= {"position_embedding_type": ("sans_pos", "absolute", "rope", None)}  # transformers reads none of them
    else:
        allowed |= {"hidden_act": (*exact, None), "position_embedding_type": ("absolute", None)}
    for key, supported in allowed.items():
        if values.get(key) not in supported:
            shown = ", ".join(str(value) for value in supported if value is not None) or "nothing"
            raise UserError(
                f"{where}: {key}={values[key]!r} is not supported for {family} (supported: {shown}). Load it as a baseline "
                "with --foreign if transformers has the code for it, or take another checkpoint."
            )
    if values["hidden_size"] % values["num_attention_heads"]:
        raise UserError(f"{where}: hidden_size is not a multiple of num_attention_heads. Restore the file.")
    if modern:
        _every(values, where)
        for name, rope in (values.get("rope_parameters") or {}).items():
            if rope is not None and (rope.get("rope_type", "default") != "default" or "factor" in rope):
                raise UserError(f"{where}: rope_parameters.{name} is {rope.get('rope_type')}; only default is supported.")
        if (scaling := values.get("rope_scaling")) not in (None, {}):
            raise UserError(f"{where}: rope_scaling={scaling}: scaled rotary positions are not supported (supported: none).")


def _every(values: dict[str, Any], where: str) -> int:
    """global_every of a ModernBERT config, which newer files give as a list of layer types."""
    types = values.get("layer_types")
    if types is None:
        return values.get("global_attn_every_n_layers", 3)
    whole = [number for number, kind in enumerate(types) if kind == "full_attention"]
    every = whole[1] if len(whole) > 1 else values.get("global_attn_every_n_layers", len(types))
    expected = ["sliding_attention" if number % every else "full_attention" for number in range(len(types))]
    if types != expected or len(types) != values["num_hidden_layers"]:
        raise UserError(f"{where}: layer_types: supported is one full_attention layer every n layers, from the first on.")
    return every


def config_from_transformers(values: dict[str, Any], where: str = "config.json") -> EncoderConfig:
    """EncoderConfig of a transformers config.json of one of the families. Raises UserError as check_config.

    Settings of ours without a counterpart (stored by export under `ours`) are restored from there.
    """
    check_config(values, where)
    family = values["model_type"]
    found = {
        "vocab_size": values["vocab_size"],
        "hidden_size": values["hidden_size"],
        "layers": values["num_hidden_layers"],
        "heads": values["num_attention_heads"],
        "intermediate_size": values["intermediate_size"],
        "initializer_range": values.get("initializer_range", 0.02),
    }
    if family == "modernbert":
        ropes = values.get("rope_parameters") or {}
        found |= {
            "architecture": "modern",
            "max_length": values["max_position_embeddings"],
            "dropout": values.get("mlp_dropout", 0.0),
            "norm_eps": values.get("norm_eps", 1e-5),
            "global_every": _every(values, where),
            "window": values.get("local_attention", 128) // 2,
            "global_theta": _theta(ropes, "full_attention", values.get("global_rope_theta"), 160_000.0),
            "local_theta": _theta(ropes, "sliding_attention", values.get("local_rope_theta"), 10_000.0),
        }
    else:
        # RoBERTa numbers positions from the padding token's id + 1 (as in fairseq).
        pad = values.get("pad_token_id")
        offset = 0 if family == "bert" else (1 if pad is None else pad) + 1
        found |= {
            "architecture": "bert",
            "max_length": values["max_position_embeddings"] - offset,
            "position_offset": offset,
            "type_vocab_size": values.get("type_vocab_size", 2),
            "dropout": values.get("hidden_dropout_prob", 0.1),
            "norm_eps": values.get("layer_norm_eps", 1e-12),
        }
    before = (values.get("ours") or {}).get("encoder", {})
    return EncoderConfig.from_dict({**before, **found})  # an error for every setting of ours that this code does not know


# Keys of config.json that do not affect the encoder: names, ids, training and generation settings.
_NO_MATTER = re.compile(
    r".*_token_id|.*dropout.*|_.*|architectures|model_type|torch_dtype|dtype|transformers_version|id2label|label2id|"
    r"problem_type|num_labels|finetuning_task|initializer_.*|use_cache|output_.*|return_dict|tie_.*|chunk_size_.*|gradient_checkpointing|"
    r"ours|language|pooler_.*|directionality|reference_compile|repad_logits_with_grad|sparse_.*|deterministic_flash_attn|"
    r"tokenizer_class|classifier_.*|decoder_bias|causal_mask|use_bfloat16|torchscript|task_specific_params|pruned_heads|"
    r"is_decoder|is_encoder_decoder|add_cross_attention|cross_attention_hidden_size|attn_implementation|max_length|min_length|"
    r"name|adapters|embedding_size"
)
_READ = {
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings"),
    *(
        "hidden_act",
        "hidden_activation",
        "position_embedding_type",
        "type_vocab_size",
        "layer_norm_eps",
        "norm_eps",
        "norm_bias",
    ),
    *("attention_bias", "mlp_bias", "layer_types", "global_attn_every_n_layers", "local_attention", "rope_parameters"),
    *("global_rope_theta", "local_rope_theta", "rope_scaling", "auto_map", "quantization_config", "rope_theta"),
}


def unknown_settings(values: dict[str, Any]) -> list[str]:
    """Keys of a config.json that are neither read here nor known to have no effect, for a note."""
    given = {key for key, value in values.items() if value is not None}
    return sorted(key for key in given - _READ if not _NO_MATTER.fullmatch(key))


def _theta(ropes: dict[str, Any], layer: str, old: float | None, usual: float) -> float:
    new = (ropes.get(layer) or {}).get("rope_theta")
    return float(new if new is not None else old if old is not None else usual)


# Settings of ours that only the other architecture reads: they are meaningless for this one and stored under `ours`.
_BERT_ONLY, _MODERN_ONLY = ("type_vocab_size", "position_offset"), ("global_every", "window", "global_theta", "local_theta")
_SHARED = (
    "architecture",
    "vocab_size",
    "hidden_size",
    "layers",
    "heads",
    "intermediate_size",
    "max_length",
    "dropout",
    "norm_eps",
    "initializer_range",
)


def check_expressible(config: EncoderConfig, family: str, where: str) -> None:
    """UserError naming every setting that changes the encoder's output and that the family's classes lack.

    Every field of EncoderConfig is written to config.json, or not read by the architecture, or must have its default, which
    is the family's behaviour. So a new field, off by default, is refused as soon as it is set.
    """
    known = {*_SHARED, *_BERT_ONLY, *_MODERN_ONLY}
    odd = [f for f in fields(config) if f.name not in known and getattr(config, f.name) != f.default]
    if odd:
        named = ", ".join(f"{f.name}={getattr(config, f.name)}" for f in odd)
        fixed = ", ".join(f"{f.name}={f.default}" for f in odd)
        raise UserError(
            f"{where}: {named}: transformers' {CLASSES[family]} has no such setting; it always computes {fixed}. Such an "
            "encoder cannot be exported."
        )


def config_to_transformers(
    config: EncoderConfig,
    family: str,
    special: dict[str, int],
    kind: str | None = None,
    labels: Sequence[str] | None = None,
    pooling: str | None = None,
) -> dict[str, Any]:
    """config.json for transformers; `special` holds pad_token_id etc., `kind`, `labels`, `pooling` describe a task head."""
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": True,
        "model_type": family,
        "architectures": [CLASSES[family] + (kind_of(kind).transformers if kind else "ForMaskedLM")],
        **special,
    }
    if kind is not None:
        names = list(labels or [f"LABEL_{number}" for number in range(head_of(kind).outputs(1))])
        common |= {"id2label": {str(n): name for n, name in enumerate(names)}, "label2id": {x: n for n, x in enumerate(names)}}
        if kind_of(kind).problem_type:
            common["problem_type"] = kind_of(kind).problem_type
    if family == "modernbert":
        return common | {
            "max_position_embeddings": config.max_length,
            "norm_eps": config.norm_eps,
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "decoder_bias": True,
            "classifier_bias": False,
            "hidden_activation": "gelu",
            "classifier_activation": "gelu",
            "classifier_pooling": pooling or "cls",
            "classifier_dropout": config.dropout,
            "global_attn_every_n_layers": config.global_every,
            "local_attention": 2 * config.window,
            "global_rope_theta": config.global_theta,
            "local_rope_theta": config.local_theta,
            "embedding_dropout": config.dropout,
            "mlp_dropout": config.dropout,
            "attention_dropout": 0.0,
        }
    return common | {
        "max_position_embeddings": config.max_length + config.position_offset,
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "position_embedding_type": "absolute",
    }
