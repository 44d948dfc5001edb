"""The settings of a model: its shape (conf/model) and the adapters of a recipe, with types, units and bounds."""

from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.settings import choice, number, several


@dataclass
class Shape:
    """An encoder's shape, conf/model: what is null is EncoderConfig's default, or with `imported` the checkpoint's."""

    architecture: choice("bert", "modern", "imported") = "bert"
    hidden_size: int | None = number(None, least=1)  # units of a token's vector
    layers: int | None = number(None, least=1)  # blocks
    heads: int | None = number(None, least=1)  # of attention
    intermediate_size: int | None = number(None, least=1)  # units inside the feed-forward
    max_length: int | None = number(None, least=8)  # tokens, special ones included
    dropout: float | None = number(None, least=0, below=1)  # probability
    activation: str | None = None  # one of ACTIVATIONS in model/encoder.py
    qk_norm: bool | None = None  # RMSNorm on queries and keys
    norm_eps: float | None = number(None, above=0)  # added to the variance
    global_every: int | None = number(None, least=1)  # layers
    window: int | None = number(None, least=1)  # tokens to either side
    global_theta: float | None = number(None, above=0)  # rotary base

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Heads share the width."""
        if values.get("hidden_size") and values.get("heads") and values["hidden_size"] % values["heads"]:
            raise UserError(
                f"{where}.hidden_size={values['hidden_size']} is not a multiple of {where}.heads={values['heads']}."
            )


@dataclass
class Lora:
    """Low-rank adapters (arXiv 2106.09685)."""

    rank: int = number(8, least=1)
    alpha: float = number(16, above=0)
    dropout: float = number(0.0, least=0, below=1)  # probability
    targets: list[str] = several("query", "value")  # linear layers by their last words

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """At least one layer is adapted."""
        if "targets" in values and not all(values["targets"] or [""]):
            raise UserError(f"{where}.targets={values['targets']}: expected a list of names.")
