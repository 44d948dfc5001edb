"""Distillation against losses written with torch's own kl_div: values and gradients; a teacher equal to the student."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.layout import Layout
from model.distillation import (
    PROJECTIONS,
    SoftTargets,
    Student,
    Teaching,
    distilled_cross_entropy,
    distilled_task_loss,
    hidden_loss,
    log_parts,
    spread,
)
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from tests.model.test_adapters import batch_of, task_model
from training.distributed import start
from training.flops import step_flops, teacher_flops

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 24,
    "layers": 2,
    "heads": 2,
    "intermediate_size": 40,
    "max_length": 32,
    "dropout": 0.0,
}
SMALL, LARGE = EncoderConfig(**SHAPE), EncoderConfig(**{**SHAPE, "hidden_size": 36, "layers": 4, "heads": 3})
LENGTHS = [9, 4, 17]
POSITIONS = torch.tensor([1, 5, 10, 14, 20, 22, 28])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def seeded(config: EncoderConfig, seed: int, **options) -> MaskedLM:
    torch.manual_seed(seed)
    model = MaskedLM(config, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch() -> tuple[torch.Tensor, Layout, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 61, (sum(LENGTHS),), generator=draw)
    return ids, Layout.of(LENGTHS), POSITIONS, torch.randint(0, 61, (len(POSITIONS),), generator=draw)


@pytest.mark.parametrize("chunk", [3, 512])
def test_loss_and_gradients_are_those_of_kl_div(chunk):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((7, 12), (50, 12), (50,)))
    teacher = torch.randn(7, 20), torch.randn(50, 20), torch.randn(50)
    targets, alpha, temperature = torch.randint(0, 50, (7,)), 0.7, 3.0
    logits, theirs = F.linear(x, weight, bias), F.linear(*teacher)
    hard = F.cross_entropy(logits, targets, reduction="sum")
    soft = F.kl_div((logits / temperature).log_softmax(1), (theirs / temperature).softmax(1), reduction="sum")
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    gradients = torch.autograd.grad(expected, (x, weight, bias))
    soft_targets = SoftTargets(*teacher, alpha, temperature, chunk)
    loss, *parts = distilled_cross_entropy(x, weight, bias, targets, soft_targets)
    torch.testing.assert_close(torch.stack([loss, *parts]), torch.stack([expected, hard, soft]).detach(), **CLOSE)
    (loss / 5).backward()  # the gradient is scaled by a factor from outside
    for value, gradient in zip((x, weight, bias), gradients, strict=True):
        torch.testing.assert_close(value.grad, gradient / 5, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [3, 512])
def test_several_teachers_are_one_with_their_mean_probability(chunk):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((7, 12), (50, 12), (50,)))
    teachers = [(torch.randn(7, width), torch.randn(50, width), torch.randn(50)) for width in (20, 8, 12)]
    targets, alpha, temperature = torch.randint(0, 50, (7,)), 0.7, 3.0
    logits = F.linear(x, weight, bias)
    theirs = torch.stack([(F.linear(*teacher) / temperature).softmax(1) for teacher in teachers]).mean(0)
    hard = F.cross_entropy(logits, targets, reduction="sum")
    soft = F.kl_div((logits / temperature).log_softmax(1), theirs, reduction="sum")
    expected = (1 - alpha) * hard + alpha * temperature**2 * soft
    gradients = torch.autograd.grad(expected, (x, weight, bias))
    soft_targets = SoftTargets(*teachers[0], alpha, temperature, chunk, teachers[1:])
    loss, *parts = distilled_cross_entropy(x, weight, bias, targets, soft_targets)
    torch.testing.assert_close(torch.stack([loss, *parts]), torch.stack([expected, hard, soft]).detach(), **CLOSE)
    loss.backward()
    for value, gradient in zip((x, weight, bias), gradients, strict=True):
        torch.testing.assert_close(value.grad, gradient, atol=1e-5, rtol=1e-4)


def test_a_student_of_several_teachers_is_the_loss_written_out():
    teachers = [seeded(LARGE, 3), seeded(SMALL, 5), seeded(LARGE, 6)]
    torch.manual_seed(4)
    student = Student(SMALL, True, teachers[0], Teaching(0.3, 2.0, spread(2, 4), "mse", 0.5), *teachers[1:])
    ids, layout, positions, targets = batch()
    loss = student(ids, layout, positions, targets)
    logits = student.logits(ids, layout, positions)
    mean = torch.stack([(one.logits(ids, layout, positions) / 2).softmax(1) for one in teachers]).mean(0)
    expected = 0.7 * F.cross_entropy(logits, targets, reduction="sum")
    expected += 0.3 * 4 * F.kl_div((logits / 2).log_softmax(1), mean, reduction="sum")
    compared = student.sums["hidden"]
    torch.testing.assert_close(loss, expected + 0.5 * compared, **CLOSE)
    count = (np.array(LENGTHS), len(POSITIONS))
    assert teacher_flops(student, *count) == sum(step_flops(MaskedLM(s, True), *count) for s in (LARGE, SMALL, LARGE)) / 3
    assert not any("others" in name for name in student.state_dict())


@pytest.mark.parametrize("last_block_on_masked", [False, True])
def test_a_student_of_its_own_copy_learns_from_the_text_only(last_block_on_masked):
    """KL is 0 and the hidden states are equal, so the gradients are the MLM's times its remaining weight."""
    own = seeded(SMALL, 1, last_block_on_masked=last_block_on_masked)
    student = Student(SMALL, last_block_on_masked, seeded(SMALL, 1), Teaching(0.4, 2.0, spread(2, 2), "mse", 3.0))
    student.load_state_dict(own.state_dict())
    assert not len(student.projections)
    loss, distilled = own(*batch()), student(*batch())
    torch.testing.assert_close(distilled, 0.6 * loss, **CLOSE)
    parts = log_parts(student, start("cpu"))["distillation"]
    assert abs(parts["kl"]) < 1e-6 and parts["hidden"] < 1e-10 and parts["mlm"] == pytest.approx(float(loss) / 7, abs=1e-5)
    assert log_parts(student, start("cpu")) == {} == log_parts(own, start("cpu"))
    loss.backward()
    distilled.backward()
    for (name, a), (_, b) in zip(own.named_parameters(), student.named_parameters(), strict=True):
        torch.testing.assert_close(b.grad, 0.6 * a.grad, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("hidden", ["mse", "cosine"])
@pytest.mark.parametrize("last_block_on_masked", [False, True])
def test_student_of_another_width_is_the_loss_written_out(hidden, last_block_on_masked):
    teacher = seeded(LARGE, 3)
    torch.manual_seed(4)
    pairs = spread(2, 4)
    assert pairs == [(0, 0), (1, 2), (2, 4)]
    student = Student(SMALL, last_block_on_masked, teacher, Teaching(0.3, 2.0, pairs, hidden, 0.5))
    ids, layout, positions, targets = batch()
    loss = student(ids, layout, positions, targets)
    ours, theirs = [], []
    logits = student.decode(student.head(student.encoder(ids, layout, hidden_states=ours)[positions]))
    their_logits = teacher.decode(teacher.head(teacher.encoder(ids, layout, hidden_states=theirs)[positions]))
    expected = 0.7 * F.cross_entropy(logits, targets, reduction="sum")
    expected += 0.3 * 4 * F.kl_div((logits / 2).log_softmax(1), (their_logits / 2).softmax(1), reduction="sum")
    for number, (mine, other) in enumerate(pairs):
        a, b = ours[mine][positions] @ student.projections[str(number)].weight.T, theirs[other][positions]
        far = (a - b).pow(2).mean(1) if hidden == "mse" else 1 - F.cosine_similarity(a, b, dim=1)
        expected += 0.5 * far.sum()
    torch.testing.assert_close(loss, expected, **CLOSE)
    parameters = dict(student.named_parameters())
    wanted = torch.autograd.grad(expected, list(parameters.values()))
    loss.backward()
    for (name, parameter), gradient in zip(parameters.items(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())


def test_a_finished_student_is_a_masked_lm_like_any_other():
    student = Student(SMALL, True, seeded(LARGE, 3), Teaching(0.3, 2.0, spread(2, 4)))
    assert {name for name in student.state_dict() if name.startswith(PROJECTIONS)}
    assert student.weights().keys() == MaskedLM(SMALL).state_dict().keys()
    plain = MaskedLM(SMALL, True)
    plain.load_state_dict(student.weights())
    with torch.no_grad():
        assert torch.equal(student.eval()(*batch()), plain.eval()(*batch()))


def test_the_teacher_uses_no_random_numbers_and_no_dropout():
    shape = EncoderConfig(**{**SHAPE, "dropout": 0.5})
    teacher = MaskedLM(shape)
    student = Student(shape, True, teacher, Teaching(1.0, 1.0)).train()
    assert not teacher.training and not any(module.training for module in teacher.modules())
    torch.manual_seed(0)
    first = student(*batch())
    torch.manual_seed(0)
    assert torch.equal(first, student(*batch()))


def test_its_flops_are_counted():
    """The teacher goes forward alone: a third of its own step, of the same documents and positions."""
    teacher = seeded(LARGE, 3)
    student = Student(SMALL, True, teacher, Teaching(0.3, 2.0))
    count = (np.array(LENGTHS), len(POSITIONS))
    assert teacher_flops(student, *count) == pytest.approx(step_flops(MaskedLM(LARGE, True), *count) / 3)
    assert step_flops(student, *count) == step_flops(MaskedLM(SMALL, True), *count)
    assert teacher_flops(MaskedLM(SMALL), *count) == 0.0
    wide = Student(SMALL, True, teacher, Teaching(0.3, 2.0, spread(2, 4)))
    assert step_flops(wide, *count) - step_flops(student, *count) == 3 * 2 * 3 * 24 * 36 * len(POSITIONS)


@pytest.mark.parametrize("kind", ["classification", "pair", "choice", "tagging", "qa"])
def test_task_losses_of_every_kind_are_kl_div(kind):
    model, teacher, rows = task_model(kind), task_model(kind, seed=1), batch_of(kind)
    scores, teacher_scores = model(rows), teacher(rows).detach()
    loss = distilled_task_loss(model, scores, teacher_scores, rows, 2.0)
    expected = torch.zeros(())
    if kind in ("choice", "qa"):
        for segment in range(rows.count):
            here = rows.segments == segment
            for ours, theirs in zip(
                scores[here].reshape(here.sum(), -1).T, teacher_scores[here].reshape(here.sum(), -1).T, strict=True
            ):
                part = F.kl_div((ours / 2).log_softmax(0), (theirs / 2).softmax(0), reduction="sum")
                expected = expected + 4 * part / (2 if kind == "qa" else 1)
    else:
        expected = 4 * F.kl_div((scores / 2).log_softmax(1), (teacher_scores / 2).softmax(1), reduction="sum")
    assert float(expected.detach()) > 1e-4
    torch.testing.assert_close(loss, expected, **CLOSE)
    itself = distilled_task_loss(model, scores, scores.detach(), rows, 2.0)
    assert abs(float(itself.detach())) < 1e-5
    gradients = torch.autograd.grad(itself, [model.head.weight])
    assert gradients[0].abs().max() < 1e-5


def test_hidden_distances():
    a, b = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 1.0], [6.0, 8.0]])
    assert float(hidden_loss(a, b, "mse")) == pytest.approx(1.0 + 12.5)
    assert float(hidden_loss(a, b, "cosine")) == pytest.approx(1.0, abs=1e-6)
