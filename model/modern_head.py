"""The head of ModernBERT's task models: the masked-LM head's dense layer, GELU and norm, then one linear layer.

transformers' ModernBertFor* all have it (initialised from the masked-LM head), so a `modern` task model can be exported
only with it. Weights are named head.dense.*, head.norm.* and head.out.*.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from model.encoder import EncoderConfig, initialise


class ModernHead(nn.Module):
    """Hidden states or pooled vectors [n, H] to scores [n, n_outputs]."""

    def __init__(self, config: EncoderConfig, n_outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=False)
        self.out = nn.Linear(config.hidden_size, n_outputs)
        self.apply(lambda module: initialise(module, config))

    def forward(self, x: Tensor) -> Tensor:
        """[n, H] to [n, n_outputs]."""
        return self.out(self.norm(F.gelu(self.dense(x))))


def add_modern_head(model: nn.Module, pretrained: dict[str, Tensor] | None = None) -> None:
    """Replace a TaskModel's linear head by a ModernHead, initialising its first two layers from a masked-LM head if given.

    `pretrained`: the checkpoint's weights, which may include head.dense.weight and head.norm.weight. Raises UserError for an
    encoder that is not `modern`, and for a pooler (which has a dense layer already).
    """
    config = model.encoder.config
    if config.architecture != "modern" or model.encoder.pooler is not None:
        raise UserError("ModernBERT's head goes on a modern encoder with recipe.pooling=cls or mean.")
    model.head = ModernHead(config, model.head.out_features)
    for part in ("dense", "norm"):
        if pretrained and f"head.{part}.weight" in pretrained:
            getattr(model.head, part).load_state_dict({"weight": pretrained[f"head.{part}.weight"]})
