"""Names of weights here and in transformers, both ways: BERT, XLM-RoBERTa / RoBERTa and ModernBERT.

`from_transformers` and `to_transformers` translate a state dict of a *ForMaskedLM model. Every weight is accounted for:
one that is missing or that nobody knows is an error with its name, never a random initialisation in silence.
"""

import re
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from model.encoder import EncoderConfig

# Ours -> theirs. {n} is the number of the block. Query, key and value are one matrix here and three in BERT's files.
BERT = {
    "encoder.words.weight": "bert.embeddings.word_embeddings.weight",
    "encoder.positions.weight": "bert.embeddings.position_embeddings.weight",
    "encoder.types.weight": "bert.embeddings.token_type_embeddings.weight",
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
    "encoder.words.weight": "model.embeddings.tok_embeddings.weight",
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
# Buffers and copies of tied weights that their files may hold and that carry nothing of their own.
DERIVED = re.compile(r"position_ids$|token_type_ids$|decoder\.(weight|bias)$|seq_relationship\.|inv_freq$")


def _table(family: str) -> dict[str, Any]:
    prefix = {"bert": "bert", "roberta": "roberta", "xlm-roberta": "roberta"}.get(family)
    if family == "modernbert":
        return MODERNBERT
    if prefix is None:
        raise UserError(f"model type {family!r}: known are bert, roberta, xlm-roberta and modernbert.")
    if prefix == "bert":
        return BERT

    def renamed(theirs: Any) -> Any:
        if isinstance(theirs, tuple):
            return tuple(renamed(name) for name in theirs)
        return re.sub(r"^bert\.", "roberta.", theirs)

    return {ours: renamed(theirs) for ours, theirs in ROBERTA.items()}


def _expand(config: EncoderConfig, family: str) -> dict[str, str | tuple[str, ...]]:
    """All pairs of full names for an encoder of this many layers, weights and biases apart."""
    pairs: dict[str, str | tuple[str, ...]] = {}
    for ours, theirs in _table(family).items():
        for n in range(config.layers) if "{n}" in ours else [None]:
            for kind in [""] if ours.endswith((".weight", "head.bias")) else [".weight", ".bias"]:

                def full(name: str, n: int | None = n, kind: str = kind) -> str:
                    return (name if n is None else name.replace("{n}", str(n))) + kind

                pairs[full(ours)] = tuple(map(full, theirs)) if isinstance(theirs, tuple) else full(theirs)
    return pairs


def from_transformers(theirs: dict[str, Tensor], config: EncoderConfig, family: str, wanted: set[str]) -> dict[str, Tensor]:
    """Our state dict with the names `wanted` out of a transformers one; UserError names what is missing or left over."""
    ours, used, missing = {}, set(), []
    for name, source in _expand(config, family).items():
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
            f"missing {', '.join(missing[:5]) or 'nothing'}; not known {', '.join(extra[:5]) or 'nothing'}."
        )
    return ours


def to_transformers(ours: dict[str, Tensor], config: EncoderConfig, family: str) -> dict[str, Tensor]:
    """A transformers state dict of the same weights; the tied decoder is left to its word embeddings."""
    theirs = {}
    for name, target in _expand(config, family).items():
        if name not in ours:
            continue
        names = target if isinstance(target, tuple) else (target,)
        for part, value in zip(names, ours[name].chunk(len(names)), strict=True):
            theirs[part] = value.clone()
    left = set(ours) - set(_expand(config, family))
    if left:
        raise UserError(f"these weights have no name in a {family} file: {', '.join(sorted(left))}.")
    return theirs


def config_from_transformers(values: dict[str, Any]) -> EncoderConfig:
    """EncoderConfig of a transformers config.json of one of the four families."""
    family = values["model_type"]
    common = {
        "vocab_size": values["vocab_size"], "hidden_size": values["hidden_size"], "layers": values["num_hidden_layers"],
        "heads": values["num_attention_heads"], "intermediate_size": values["intermediate_size"],
        "initializer_range": values.get("initializer_range", 0.02),
    }  # fmt: skip
    if family == "modernbert":
        ropes = values.get("rope_parameters") or {}
        return EncoderConfig(
            architecture="modern", max_length=values["max_position_embeddings"], dropout=values.get("mlp_dropout", 0.0),
            norm_eps=values.get("norm_eps", 1e-5), global_every=values.get("global_attn_every_n_layers", 3),
            window=values.get("local_attention", 128) // 2,
            global_theta=ropes.get("full_attention", {}).get("rope_theta", values.get("global_rope_theta", 160_000.0)),
            local_theta=ropes.get("sliding_attention", {}).get("rope_theta", values.get("local_rope_theta", 10_000.0)),
            **common,
        )  # fmt: skip
    offset = 0 if family == "bert" else values.get("pad_token_id", 1) + 1
    return EncoderConfig(
        architecture="bert", max_length=values["max_position_embeddings"] - offset, position_offset=offset,
        types=values.get("type_vocab_size", 2), dropout=values.get("hidden_dropout_prob", 0.1),
        norm_eps=values.get("layer_norm_eps", 1e-12), **common,
    )  # fmt: skip


def config_to_transformers(config: EncoderConfig, family: str, special: dict[str, int]) -> dict[str, Any]:
    """config.json for transformers; `special` holds pad_token_id and its like."""
    common = {
        "vocab_size": config.vocab_size, "hidden_size": config.hidden_size, "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads, "intermediate_size": config.intermediate_size,
        "initializer_range": config.initializer_range, "tie_word_embeddings": True, **special,
    }  # fmt: skip
    if family == "modernbert":
        return common | {
            "model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"],
            "max_position_embeddings": config.max_length, "norm_eps": config.norm_eps, "norm_bias": False,
            "attention_bias": False, "mlp_bias": False, "decoder_bias": True, "classifier_bias": False,
            "hidden_activation": "gelu", "classifier_activation": "gelu",
            "global_attn_every_n_layers": config.global_every, "local_attention": 2 * config.window,
            "global_rope_theta": config.global_theta, "local_rope_theta": config.local_theta,
            "embedding_dropout": config.dropout, "mlp_dropout": config.dropout, "attention_dropout": 0.0,
        }  # fmt: skip
    return common | {
        "model_type": family, "architectures": ["BertForMaskedLM" if family == "bert" else "XLMRobertaForMaskedLM"],
        "max_position_embeddings": config.max_length + config.position_offset, "type_vocab_size": config.types,
        "hidden_act": "gelu", "hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps, "position_embedding_type": "absolute",
    }  # fmt: skip
