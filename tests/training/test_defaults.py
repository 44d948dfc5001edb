"""Default rate and pooling come from the checkpoint (shape, pooler, trained part); the task file and the user win."""

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from model.encoder import EncoderConfig
from tests.test_finetune import checkpoint, files, settings_of  # noqa: F401  (fixtures)
from training.defaults import default_rate, with_defaults
from training.recipe import with_recipe
from training.sizes import block_rms
from training.task_models import read_start


def shape(layers: int, width: int) -> EncoderConfig:
    return EncoderConfig("modern", 100, width, layers, 4, width)


def test_rates_agree_with_papers_for_these_shapes():
    assert default_rate(shape(4, 256)) == 3e-4
    assert 2e-5 <= default_rate(shape(12, 768)) <= 5e-5  # BERT, appendix A.3
    assert 2e-5 <= default_rate(shape(13, 768)) <= 5e-5
    assert 1e-5 <= default_rate(shape(24, 1024)) <= 3e-5  # RoBERTa-large: 1e-5 to 3e-5
    assert default_rate(shape(12, 768)) < default_rate(shape(4, 512)) < default_rate(shape(4, 256))
    assert 2e-4 <= default_rate(shape(12, 768), adapter=True) <= 1e-3  # LoRA on RoBERTa-base: 5e-4
    assert default_rate(shape(12, 768), linear_probe=True) == default_rate(shape(4, 256), linear_probe=True) > 1e-3


def test_a_pooler_is_used_only_when_pre_training_trained_it(checkpoint):  # noqa: F811
    start = read_start(checkpoint)
    settings, line = with_defaults(settings_of("task=az_topic"), start)
    assert settings.recipe.pooling == "mean" and settings.recipe.lr == default_rate(start.config)
    assert "pooling=mean by the checkpoint: 2 x 32, pooler not trained, block weights 0.0" in line
    size = start.config.hidden_size
    pooler = {"encoder.pooler.weight": torch.zeros(size, size), "encoder.pooler.bias": torch.zeros(size)}
    bert = replace(start, weights=start.weights | pooler)
    assert with_defaults(settings_of("task=az_topic"), bert)[0].recipe.pooling == "pooler"
    assert with_defaults(settings_of("task=az_topic", "recipe.head=modern"), bert)[0].recipe.pooling == "mean"
    new = read_start(checkpoint, scratch=True)
    assert with_defaults(settings_of("task=az_topic"), new)[0].recipe.pooling == "mean"


def test_command_line_wins_over_task_file_over_checkpoint(checkpoint):  # noqa: F811
    start = read_start(checkpoint)
    own = ["+task.recipe.lr=0.25", "+task.recipe.pooling=cls"]
    of_the_task = settings_of("task.kind=pair", *own)
    assert with_defaults(of_the_task, start) == (of_the_task, "")
    assert (of_the_task.recipe.lr, of_the_task.recipe.pooling) == (0.25, "cls")
    assert settings_of("task.kind=pair", *own, "recipe.lr=0.5").recipe.lr == 0.5
    entry = with_recipe(settings_of("task.kind=pair"), {"adapter": "lora"})  # an entry of a benchmark has a rate of its own
    assert with_defaults(entry, start)[0].recipe.lr == default_rate(start.config, adapter=True)
    with pytest.raises(UserError, match=r"recipe\.lr=some"):
        settings_of("recipe.lr=some")


def test_weights_too_large_to_train_are_named(checkpoint):  # noqa: F811
    start = read_start(checkpoint)
    assert block_rms(start.weights) == pytest.approx(0.02, rel=0.1)  # as initialised
    large = replace(start, weights={name: 10 * value for name, value in start.weights.items()})
    assert block_rms(large.weights) == pytest.approx(10 * block_rms(start.weights), rel=1e-4)
    assert "hard to fine-tune" in with_defaults(settings_of("task=az_topic"), large)[1]
    assert "hard to fine-tune" not in with_defaults(settings_of("task=az_topic"), start)[1]
