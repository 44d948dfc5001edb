"""ECE and the floor of a perfect model, Brier and NLL by hand, and a temperature that is recovered."""

import numpy as np
import pytest

from evaluation.calibration import (
    brier,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    perfect_floor,
    probabilities,
    scaled,
)


def _perfect(random, n, classes=4, spread=1.5):
    """Logits of a model whose outcomes are drawn from exactly its own probabilities."""
    logs = scaled(random.normal(0, spread, size=(n, classes)), 1.0)
    gold = (np.exp(logs).cumsum(1) < random.random((n, 1))).sum(1).clip(max=classes - 1)
    return logs, gold


def _rows(logs, gold):
    return [
        {"id": i, "gold": int(g), "scores": list(map(float, line))} for i, (line, g) in enumerate(zip(logs, gold, strict=True))
    ]


def test_ece_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.61, 0.61]), np.array([True, False, True, True])
    assert float(expected_calibration_error(confidence, right)) == pytest.approx((2 * 0.45 + 2 * 0.39) / 4)
    assert float(expected_calibration_error(np.ones(3), np.ones(3))) == 0  # confidence 1 falls into a bin


@pytest.mark.parametrize("n", [200, 600, 1700])
def test_floor_is_what_perfect_models_really_get(n):
    """The floor of one model's confidences against the mean ECE of 200 other perfect models of the same size."""
    random = np.random.default_rng(n)
    errors = []
    for _ in range(200):
        logs, gold = _perfect(random, n)
        errors.append(float(expected_calibration_error(np.exp(logs.max(1)), logs.argmax(1) == gold)))
    logs, _ = _perfect(random, n)
    floor, high = perfect_floor(np.exp(logs.max(1)))
    assert floor == pytest.approx(np.mean(errors), rel=0.06)
    assert 0.9 <= np.mean(np.array(errors) < high) <= 0.99
    assert perfect_floor(np.exp(logs.max(1))) == (floor, high)


def test_floor_shrinks_with_the_test_set_as_published():
    """A perfect model has an ECE of about .035 at 200, .021 at 600, .013 at 1,700 examples."""
    random = np.random.default_rng(0)
    for n, expected in ((200, 0.035), (600, 0.021), (1700, 0.013)):
        confident = 1 - 0.5 * random.beta(0.6, 2.4, n)  # 0.9 on average, as a fine-tuned encoder on two classes
        assert perfect_floor(confident)[0] == pytest.approx(expected, rel=0.3)


def test_brier_and_nll_by_hand():
    logs, gold = np.log(np.array([[0.5, 0.5], [0.9, 0.1]])), np.array([0, 1])
    assert brier(logs, gold) == pytest.approx((0.5 + 1.62) / 2)
    assert negative_log_likelihood(logs, gold) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_recovered_and_calibrates_the_test_set(temperature):
    random = np.random.default_rng(5)
    (dev, dev_gold), (test, test_gold) = _perfect(random, 3000), _perfect(random, 3000)
    assert fit_temperature(dev / (1 / temperature), dev_gold) == pytest.approx(temperature, rel=0.1)
    found = calibrate([_rows(test * temperature, test_gold)], [_rows(dev * temperature, dev_gold)])
    assert found.ece_scaled < found.floor_high + 0.01
    assert found.nll_scaled == pytest.approx(negative_log_likelihood(test, test_gold), rel=0.01)
    assert found.brier_scaled == pytest.approx(brier(test, test_gold), rel=0.01)
    if temperature != 1.0:
        assert found.brier > found.brier_scaled
        assert found.ece > 2 * found.floor and found.nll > found.nll_scaled


def test_ragged_choices_and_missing_scores():
    rows = [{"gold": 1, "scores": [0.0, 0.0]}, {"gold": 2, "scores": [0.0, 0.0, 0.0]}]
    logs, gold = probabilities(rows)
    assert np.exp(logs) == pytest.approx(np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]])) and list(gold) == [1, 2]
    assert np.isfinite([brier(logs, gold), negative_log_likelihood(logs, gold)]).all()
    assert probabilities([{"gold": "a", "scores": {}}]) is None and probabilities([{"gold": "a", "scores": {"b": 0.0}}]) is None
    assert calibrate([[{"gold": "a"}]], [None]) is None
    assert calibrate([rows], [None]).temperature is None
