"""Any other encoder that transformers can load (mDeBERTa, ELECTRA, ...) as a baseline with the interface of our own.

Input is a flat batch with its Layout, output flat hidden states; padding stays inside, so heads, fine-tuning and the
benchmark work unchanged. The code is transformers' (an optional dependency; code in a repository is never run). Masked-LM
pre-training and export are not supported.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from data.layout import Layout
from model.convert.families import SUPPORTED
from model.encoder import Encoder, EncoderConfig, initialise
from tokenization.tokenizer import Tokenizer

# DeBERTa's disentangled attention overflows in fp16 and loses the small weights of a small rate in bf16
# (github.com/microsoft/DeBERTa/issues/77): its layers always run in fp32.
FP32_ONLY = ("deberta", "deberta-v2")
# Families that number positions from the padding token's id + 1, so that the table has that many extra rows.
SHIFTED = ("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl", "mpnet", "data2vec-text", "ibert", "longformer")
NO_LIMIT = 8192  # tokens, for relative positions without a table
# Omitted; the task's own pooler is used.
WITH_POOLER = ("bert", "roberta", "xlm-roberta", "camembert", "albert", "mpnet", "ernie")


def transformers_library() -> Any:
    """The transformers package. Raises UserError when it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("an encoder of another architecture needs transformers. pip install 'transformers>=5'") from None
    return transformers


@dataclass
class ForeignConfig(EncoderConfig):
    """Shape of a foreign encoder, as far as heads and fine-tuning need it, and transformers' complete config."""

    architecture: str = "foreign"
    transformers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pass  # transformers checks its own config


class ForeignEncoder(nn.Module):
    """transformers' encoder with our encoder's interface; parameters are named model.* and pooler.*.

    The pooler is ours (BERT's dense layer and tanh on the first token), new unless the checkpoint has one.
    """

    def __init__(self, config: ForeignConfig, pooler: bool = False) -> None:
        super().__init__()
        library = transformers_library()
        values = dict(config.transformers)
        self.config = config
        theirs = library.AutoConfig.for_model(values.pop("model_type"), **values)
        self.model = build_model(theirs)
        self.reads_types = getattr(theirs, "type_vocab_size", 0) > 1
        self.type_vocab_size = getattr(theirs, "type_vocab_size", 0)
        self.pad = theirs.pad_token_id or 0
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None
        if self.pooler is not None:
            initialise(self.pooler, config)

    def forward(
        self,
        ids: Tensor,
        layout: Layout,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        hidden_states: list | None = None,
    ) -> Tensor:
        """Hidden states of the last layer, as Encoder.forward: ids [T] to [T, H], or [M, H] at `positions`."""
        if layout.longest > self.config.max_length:
            raise UserError(
                f"a text of {layout.longest} tokens, but the encoder's max_length is {self.config.max_length}: cut it."
            )
        rectangles, _ = layout.rows("padded")  # documents of similar length together, to save padding
        parts, places, layers = [], [], []
        fp32 = self.config.transformers["model_type"] in FP32_ONLY
        for rows in rectangles:
            width = int((rows.document >= 0).sum(1).max())  # the row length may exceed the table of positions
            index, real = rows.index[:, :width], rows.document[:, :width] >= 0
            inputs = {"input_ids": torch.where(real, ids[index], self.pad), "attention_mask": real.long()}
            if self.reads_types:
                inputs["token_type_ids"] = (
                    torch.zeros_like(index) if token_types is None else torch.where(real, token_types[index], 0)
                )
                inputs["token_type_ids"] = inputs["token_type_ids"].clamp(max=self.type_vocab_size - 1)
            with torch.autocast(ids.device.type, enabled=torch.is_autocast_enabled(ids.device.type) and not fp32):
                out = self.model(**inputs, output_hidden_states=hidden_states is not None, return_dict=True)
            parts.append(out.last_hidden_state[real])
            places.append(index[real])
            if hidden_states is not None:
                layers.append([state[real] for state in out.hidden_states])
        order = torch.argsort(torch.cat(places))
        if hidden_states is not None:
            hidden_states += [torch.cat(layer)[order] for layer in zip(*layers, strict=True)]
        hidden = torch.cat(parts)[order]
        return hidden if positions is None else hidden[positions]

    def pool(self, first: Tensor) -> Tensor:
        """Pooled vector of the first token's state: [n, H] to [n, H]."""
        return torch.tanh(self.pooler(first))


def build_model(theirs: Any) -> nn.Module:
    """transformers' bare encoder of a config, in fp32, without the pooler if its class allows that."""
    return transformers_library().AutoModel.from_config(theirs, dtype=torch.float32, **model_options(theirs))


def model_options(theirs: Any) -> dict[str, bool]:
    """Arguments of AutoModel in addition to the config."""
    return {"add_pooling_layer": False} if theirs.model_type in WITH_POOLER else {}


def build_encoder(config: EncoderConfig, pooler: bool = False) -> Encoder | ForeignEncoder:
    """The encoder of a config, ours or transformers', with new weights."""
    return ForeignEncoder(config, pooler) if isinstance(config, ForeignConfig) else Encoder(config, pooler=pooler)


def config_of(values: dict[str, Any]) -> EncoderConfig:
    """The config stored in config.json of a checkpoint under "encoder"."""
    return (ForeignConfig if values.get("architecture") == "foreign" else EncoderConfig).from_dict(values)


def foreign_config(values: dict[str, Any], tokenizer: Tokenizer, where: Path) -> ForeignConfig:
    """ForeignConfig of a transformers config.json.

    Raises UserError for an architecture that transformers does not know or that is not a masked-LM encoder, and for one whose
    code is in the repository (it is never run).
    """
    library = transformers_library()
    family = values["model_type"]
    if values.get("auto_map") and family not in library.CONFIG_MAPPING:
        raise UserError(
            f"{where}: {family} needs code from its repository (auto_map), which is never run. Supported: {SUPPORTED}."
        )
    if family not in library.CONFIG_MAPPING:
        raise UserError(
            f"{where}: model type {family!r} is not known. Supported: {SUPPORTED}; as baselines, encoders of transformers "
            f"{library.__version__} with a masked-LM head."
        )
    kwargs = {key: value for key, value in values.items() if key not in ("model_type", "auto_map")}
    try:
        theirs = library.AutoConfig.for_model(family, **kwargs)
    except Exception as error:  # its own checks of types and values
        raise UserError(f"{where}: transformers refuses this config ({error}). Restore the file.") from None
    decoder = getattr(theirs, "is_decoder", False) or getattr(theirs, "is_encoder_decoder", False)
    if decoder or type(theirs) not in library.MODEL_FOR_MASKED_LM_MAPPING:
        kind = "a decoder or encoder-decoder" if decoder else "not a masked-LM encoder"
        raise UserError(
            f"{where}: {family} is {kind}. Supported: {SUPPORTED}; as baselines, encoders that AutoModelForMaskedLM loads."
        )
    limit = getattr(theirs, "max_position_embeddings", None) or NO_LIMIT
    if family in SHIFTED:
        limit -= (theirs.pad_token_id or 0) + 1
    kept = {key: value for key, value in theirs.to_dict().items() if key not in ("auto_map", "_name_or_path")}
    return ForeignConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=theirs.hidden_size,
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        intermediate_size=getattr(theirs, "intermediate_size", 4 * theirs.hidden_size),
        max_length=min(limit, tokenizer.max_length if "max_position_embeddings" not in values else limit),
        type_vocab_size=getattr(theirs, "type_vocab_size", 0),
        dropout=getattr(theirs, "hidden_dropout_prob", 0.1),
        initializer_range=getattr(theirs, "initializer_range", 0.02),
        transformers=kept,
    )
