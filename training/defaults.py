"""Default fine-tuning rate and pooling for a checkpoint, used if neither the command line nor the task file sets them.

Rate of full fine-tuning: 3e-4 x (256 / width) x (4 / layers), between 1e-5 and 1e-3. 3e-4 at 4 x 256 is the top of the grid
on which Google's miniatures were tuned (Turc et al. 2019, arXiv 1908.08962). Adam's rate falls with the width (muP, arXiv
2203.03466); that it falls with the depth too is an assumption that fits BERT's 2e-5 to 5e-5 at 12 x 768 (arXiv 1810.04805,
appendix A.3: here 3.3e-5) and RoBERTa's 1e-5 to 3e-5 at 24 x 1024 (1.2e-5). recipe.lr=auto checks it on dev.
"""

from dataclasses import replace

from model.encoder import EncoderConfig
from training.settings import Finetuning, Recipe
from training.sizes import LARGE, block_rms
from training.task_models import Start

RATE, WIDTH, LAYERS = 3e-4, 256, 4
LEAST, MOST = 1e-5, 1e-3  # the rule is not trusted outside: no model named above was tuned to a lower or a higher rate
# Adapters need about ten times the rate of all weights, whatever their rank (Schulman et al. 2025, "LoRA Without Regret");
# arXiv 2106.09685 has 5e-4 for RoBERTa-base, here 3.3e-4.
ADAPTER = 10.0
PROBE = 3e-3  # one linear layer on vectors of unit size, whatever width and depth. A guess, not tuned
SEARCH = (1 / 3, 1.0, 3.0)  # recipe.lr=auto: factors on the rate above
FIRST_SEARCH_SEED = 1000  # seed of that search only


def default_rate(config: EncoderConfig, adapter: bool = False, linear_probe: bool = False) -> float:
    """AdamW's peak rate for an encoder of this shape: of all weights, of adapters, or of a linear probe."""
    if linear_probe:
        return PROBE
    rate = RATE * (WIDTH / config.hidden_size) * (LAYERS / config.layers)
    return float(f"{min(MOST, max(LEAST, rate)) * (ADAPTER if adapter else 1):.2g}")


def default_pooling(trained_pooler: bool, head: str = "linear") -> str:
    """The default pooling: the pooler if pre-training trained it and the head is linear, otherwise the mean.

    A new pooler is a dense layer that only the task trains, and masked-LM pre-training does not train [CLS].
    """
    return "pooler" if trained_pooler and head == "linear" else "mean"


def with_defaults(settings: Finetuning, start: Start) -> tuple[Finetuning, str]:
    """(`settings` with recipe.lr and recipe.pooling filled in where they are null, what was filled in and why, or "")."""
    recipe = replace(settings.recipe)
    said = []
    if recipe.lr is None:
        recipe.lr = default_rate(start.config, recipe.adapter is not None, recipe.linear_probe)
        said.append(f"recipe.lr={recipe.lr:g}")
    if recipe.pooling is None:
        recipe.pooling = default_pooling(start.trained_pooler, recipe.head)
        said.append(f"pooling={recipe.pooling}")
    if not said:
        return settings, ""
    size = block_rms(start.weights or {})
    about = [f"{start.config.layers} x {start.config.hidden_size}", f"pooler {'' if start.trained_pooler else 'not '}trained"]
    about += ["new weights"] if start.weights is None else []
    about += [f"block weights {size:.3f}"] if size is not None else []
    line = f"{start.name}: {' and '.join(said)} by the checkpoint: {', '.join(about)}"
    if size is not None and size > LARGE:
        line += (
            f". Weights above {LARGE:g} are hard to fine-tune: what they learned may be lost. Pre-train with a lower rate "
            "and more weight decay, or try recipe.linear_probe=true"
        )
    return replace(settings, recipe=recipe), line


def search_rates(config: EncoderConfig, recipe: Recipe) -> list[float]:
    """What recipe.lr=auto tries: the default rate, a third and three times of it."""
    rate = default_rate(config, recipe.adapter is not None, recipe.linear_probe)
    return [float(f"{rate * factor:.2g}") for factor in SEARCH]
