"""Task heads against transformers' BertFor* on the same random weights: scores, loss and gradients, to 1e-5."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.features import collate
from model.convert.families import config_to_transformers, from_transformers
from model.encoder import Encoder, EncoderConfig
from model.heads import TaskModel, is_pooled, segment_log_softmax
from model.store import load_task_model
from tasks.base import kind_of
from tasks.encoding import Encoded, Row

VOCAB, LABELS = 97, 5
CONFIG = EncoderConfig(vocab_size=VOCAB, hidden_size=48, layers=3, heads=4, intermediate_size=80, max_length=32)
CLASSES = {
    "classification": "BertForSequenceClassification",
    "pair": "BertForSequenceClassification",
    "choice": "BertForMultipleChoice",
    "tagging": "BertForTokenClassification",
    "qa": "BertForQuestionAnswering",
    "similarity": "BertForSequenceClassification",
    "multilabel": "BertForSequenceClassification",
}


def models(kind: str):
    """Transformers' model and ours with its weights, both without dropout."""
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    values = config_to_transformers(CONFIG, "bert", {"pad_token_id": 0})
    config = transformers.BertConfig(
        **{k: v for k, v in values.items() if k != "model_type"},
        num_labels={"qa": 2, "similarity": 1}.get(kind, LABELS),
        problem_type=kind_of(kind).problem_type,
    )
    config._attn_implementation = "eager"
    torch.manual_seed(3)
    peer = getattr(transformers, CLASSES[kind])(config).eval()
    with torch.no_grad():  # larger weights and biases away from 0, so that a missing one shows
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = TaskModel(Encoder(CONFIG, pooler=is_pooled(kind)), kind, LABELS).eval()
    ours.load_state_dict(translated(peer.state_dict(), ours))
    return peer, ours


def translated(theirs: dict, ours: TaskModel) -> dict:
    """Weights or gradients of a BertFor* model under our names."""
    head = {name: value for name, value in theirs.items() if name.startswith(("classifier.", "qa_outputs."))}
    body = {name: value for name, value in theirs.items() if name not in head}
    wanted = {name for name in ours.state_dict() if name.startswith("encoder.")}
    return from_transformers(body, CONFIG, "bert", wanted) | {"head." + n.split(".")[1]: v for n, v in head.items()}


def encoded_of(kind: str, lengths: list[int], options: list[int] | None = None) -> Encoded:
    """Random rows of two texts each; `options` groups them into questions."""
    generator = np.random.default_rng(5)
    encoded, rows = Encoded(kind), []
    for n in lengths:
        second = int(generator.integers(2, n))
        if kind == "tagging":
            positions = np.sort(generator.choice(np.arange(1, n), size=max(1, n // 2), replace=False))
            targets = generator.integers(0, LABELS, len(positions))
        elif kind == "qa":
            positions, targets = np.arange(n), np.sort(generator.integers(0, n, 2))
        elif kind == "similarity":
            positions, targets = np.zeros(1, np.int64), generator.random(1, dtype=np.float32)
        elif kind == "multilabel":
            positions, targets = np.zeros(1, np.int64), generator.integers(0, 2, (1, LABELS)).astype(np.float32)
        else:
            positions, targets = np.zeros(1, np.int64), generator.integers(0, LABELS, 1)
        rows.append(Row(generator.integers(5, VOCAB, n).astype(np.int32), second, positions, targets))
    for count in options or [1] * len(rows):
        group, rows = rows[:count], rows[count:]
        right = generator.integers(0, count)
        for row in group:
            row.targets = np.array([right]) if kind == "choice" else row.targets
        encoded.close(group, False)
    return encoded


def padded(encoded: Encoded) -> dict[str, torch.Tensor]:
    width = max(len(row.ids) for row in encoded.rows)
    parts = {
        name: torch.zeros(len(encoded.rows), width, dtype=torch.long)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    for number, row in enumerate(encoded.rows):
        n = len(row.ids)
        parts["input_ids"][number, :n] = torch.from_numpy(row.ids)
        parts["token_type_ids"][number, row.second : n] = 1
        parts["attention_mask"][number, :n] = 1
    return parts


@pytest.mark.parametrize("kind", CLASSES)
def test_equals_transformers(kind):
    # Transformers' start and end softmax includes padding: windows of one length there. Other kinds are ragged.
    lengths = [20, 20, 20, 20, 20, 20] if kind == "qa" else [20, 7, 31, 3, 12, 9]
    encoded = encoded_of(kind, lengths, [3, 3] if kind == "choice" else None)
    peer, ours = models(kind)
    batch = collate(encoded, np.arange(6))
    scores = ours(batch)
    inputs = padded(encoded)
    if kind == "choice":
        inputs = {name: value.view(2, 3, -1) for name, value in inputs.items()}
        labels = {"labels": torch.tensor([int(encoded.rows[0].targets[0]), int(encoded.rows[3].targets[0])])}
    elif kind == "qa":
        starts, ends = zip(*(row.targets for row in encoded.rows), strict=True)
        labels = {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}
    elif kind == "tagging":
        wanted = torch.full((6, 31), -100)
        for number, row in enumerate(encoded.rows):
            wanted[number, row.positions] = torch.from_numpy(row.targets)
        labels = {"labels": wanted}
    elif kind in ("similarity", "multilabel"):
        labels = {"labels": torch.from_numpy(np.concatenate([row.targets for row in encoded.rows]))}
    else:
        labels = {"labels": torch.tensor([int(row.targets[0]) for row in encoded.rows])}
    theirs = peer(**inputs, **labels)
    if kind == "qa":
        expected = torch.stack([theirs.start_logits.flatten(), theirs.end_logits.flatten()], 1)
    elif kind == "tagging":
        expected = torch.cat([theirs.logits[number, row.positions] for number, row in enumerate(encoded.rows)])
    else:
        expected = theirs.logits.flatten() if kind == "choice" else theirs.logits
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    loss = ours.loss(scores, batch) / batch.count
    torch.testing.assert_close(loss, theirs.loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    theirs.loss.backward()
    gradients = {name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in peer.named_parameters()}
    gradients = translated(gradients, ours)
    for name, parameter in ours.named_parameters():
        grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        torch.testing.assert_close(grad, gradients[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_a_batch_is_the_sum_of_its_rows(kind, architecture):
    """Rows, windows and questions are independent: the loss of a batch is the sum of the separate losses."""
    torch.manual_seed(0)
    config = EncoderConfig(
        **{**CONFIG.to_dict(), "architecture": architecture, "window": 4, "dropout": 0.0, "initializer_range": 0.3}
    )
    model = TaskModel(Encoder(config, pooler=is_pooled(kind)), kind, LABELS).double()
    encoded = encoded_of(kind, [9, 31, 4, 17, 12, 25, 8], [2, 5] if kind == "choice" else None)
    groups = [np.arange(0, 2), np.arange(2, 7)] if kind == "choice" else [np.array([i]) for i in range(7)]

    def loss(numbers):
        batch = collate(encoded, numbers)
        return model.loss(model(batch), batch)

    together = loss(np.arange(7))
    torch.testing.assert_close(together, sum(loss(numbers) for numbers in groups), atol=1e-4, rtol=1e-5)
    backwards = np.concatenate(groups[::-1])
    torch.testing.assert_close(loss(backwards), together, atol=1e-4, rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(0, 2**31), st.sampled_from([1.0, 1e4]))
def test_segment_log_softmax_is_log_softmax_of_each_segment(sizes, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(sum(sizes), 2, generator=generator, dtype=torch.float64) * scale
    segments = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    expected = torch.cat([part.log_softmax(0) for part in scores.split(sizes)])
    torch.testing.assert_close(segment_log_softmax(scores, segments, len(sizes)), expected)
    torch.testing.assert_close(segment_log_softmax(scores[:, 0], segments, len(sizes)), expected[:, 0])


def test_pretrained_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        load_task_model(tmp_path / "none")
