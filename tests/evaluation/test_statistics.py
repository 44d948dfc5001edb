"""The 95 % intervals cover 95 %, for scores and differences of means and of F1; Holm's correction is correct."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from evaluation import statistics
from evaluation.statistics import class_intervals, difference_interval, holm, score_interval
from tasks.metrics import CORRELATIONS

TRIALS = 400  # a true 95 % lands within 92 to 97.5 % of 400 trials with probability 0.99


def _simulate(random, n_seeds, seed_sd, item, base=1.0):
    """Right/wrong (S, n): logit = base + item + seed effect, so seeds and items both vary, plus a Bernoulli draw."""
    seeds = random.normal(0, seed_sd, size=(n_seeds, 1))
    p = 1 / (1 + np.exp(-(base + item[None] + seeds)))
    return (random.random(p.shape) < p).astype(float)


def _true_score(seed_sd, item_sd, base=1.0):
    random = np.random.default_rng(99)
    x = base + np.hypot(seed_sd, item_sd) * random.normal(size=400_000)
    return float((1 / (1 + np.exp(-x))).mean())


@pytest.mark.parametrize("n_seeds", [3, 8])
def test_coverage_of_a_mean(n_seeds):
    random, truth, hits, one_seed_hits = np.random.default_rng(n_seeds), _true_score(0.25, 1.2), 0, 0
    for _ in range(TRIALS):
        runs = _simulate(random, n_seeds, 0.25, random.normal(0, 1.2, 300))
        interval = score_interval(list(runs))
        hits += interval.low <= truth <= interval.high
        narrow = 1.96 * runs.mean(0).std(ddof=1) / np.sqrt(300)  # examples only: the plain bootstrap
        one_seed_hits += abs(runs.mean() - truth) <= narrow
    assert 0.92 <= hits / TRIALS <= 0.975
    assert one_seed_hits / TRIALS < 0.92  # the simulation is hard enough to catch an interval that ignores the seeds


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(5, 60), st.floats(0.05, 0.95))
def test_degrees_of_freedom_are_at_least_those_of_the_smallest_part(seed, n_seeds, n, share):
    """When the remainder is taken out of the seeds' part, the formula alone can give arbitrarily few."""
    runs = (np.random.default_rng(seed).random((n_seeds, n)) < share).astype(float)
    interval = score_interval(list(runs))
    assert interval.df >= min(n_seeds, n) - 1
    half = stats.t.ppf(0.975, min(n_seeds, n) - 1) * interval.se
    assert interval.high - interval.value <= half + 1e-12 and interval.value - interval.low <= half + 1e-12


def test_coverage_of_a_difference():
    random, hits = np.random.default_rng(5), 0
    truth = _true_score(0.25, 1.2, base=1.3) - _true_score(0.15, 1.2)
    for _ in range(TRIALS):
        item = random.normal(0, 1.2, 300)
        a = _simulate(random, 5, 0.25, item, base=1.3)
        b = _simulate(random, 5, 0.15, item)
        interval = difference_interval(list(a), list(b))
        hits += interval.low <= truth <= interval.high
    assert 0.92 <= hits / TRIALS <= 0.975


def _counts(random, right, gold):
    pred = np.where(right > 0, gold, (gold + random.integers(1, 3, size=right.shape)) % 3)
    counts = np.zeros((*right.shape, 3, 3))
    for label in range(3):
        counts[..., 2, label], counts[..., 1, label] = gold == label, pred == label
        counts[..., 0, label] = (gold == label) & (pred == label)
    return counts


def test_coverage_of_macro_f1_and_of_its_difference(monkeypatch):
    monkeypatch.setattr(statistics, "REPLICATES", 150)
    random = np.random.default_rng(7)

    def draw(gold, item, base):
        return list(_counts(random, _simulate(random, 4, 0.25, item, base), gold))

    def truth(base):
        big = 150_000  # seed effects spread over items like another item effect: the population's counts
        item = random.normal(0, np.hypot(1.2, 0.25), big)
        gold = random.choice(3, size=big, p=[0.6, 0.25, 0.15])
        counts = _counts(random, _simulate(random, 1, 0.0, item, base), gold)[0].sum(0)
        return float(statistics.f1_of_counts(counts, "macro"))

    high, low = truth(1.4), truth(1.0)
    score_hits = gap_hits = 0
    for _ in range(TRIALS):
        item, gold = random.normal(0, 1.2, 300), random.choice(3, size=300, p=[0.6, 0.25, 0.15])
        a, b = draw(gold, item, 1.4), draw(gold, item, 1.0)
        one, both = score_interval(a, "macro"), difference_interval(a, b, "macro")
        score_hits += one.low <= high <= one.high
        gap_hits += both.low <= high - low <= both.high
    assert 0.92 <= score_hits / TRIALS <= 0.98
    assert 0.92 <= gap_hits / TRIALS <= 0.98


def _grouped(random, count, sd):
    """Group names and an item effect shared by the members of a group of 1 to 9, like the questions of one context."""
    sizes = random.integers(1, 10, size=count)
    effect = np.repeat(random.normal(0, sd, count), sizes) + random.normal(0, 0.5, sizes.sum())
    return np.repeat(np.arange(count).astype(str), sizes), effect


def test_coverage_with_groups_of_a_mean_and_of_a_difference():
    """120 contexts. Ignoring the groups covers far too little, so the simulation can tell the two methods apart."""
    random, hits, gap_hits, naive = np.random.default_rng(21), 0, 0, 0
    truth = _true_score(0.2, np.hypot(1.4, 0.5))
    gap = _true_score(0.2, np.hypot(1.4, 0.5), base=1.3) - truth
    for _ in range(TRIALS):
        groups, item = _grouped(random, 120, 1.4)
        runs = _simulate(random, 5, 0.2, item)
        # The other model shares only half of a context's difficulty, so that the difference is grouped too.
        other = 0.5 * item + np.sqrt(0.75) * _grouped_like(random, groups, 1.4)
        better = _simulate(random, 5, 0.2, other, base=1.3)
        interval = score_interval(list(runs), groups=groups)
        hits += interval.low <= truth <= interval.high
        plain = score_interval(list(runs))
        naive += plain.low <= truth <= plain.high
        interval = difference_interval(list(better), list(runs), groups=groups)
        gap_hits += interval.low <= gap <= interval.high
    assert 0.92 <= hits / TRIALS <= 0.975
    assert 0.92 <= gap_hits / TRIALS <= 0.975
    assert naive / TRIALS < 0.88


def _grouped_like(random, groups, sd):
    places = np.unique(groups, return_inverse=True)[1]
    return random.normal(0, sd, places.max() + 1)[places] + random.normal(0, 0.5, len(groups))


@pytest.mark.slow
def test_coverage_with_groups_of_macro_f1_and_of_its_difference(monkeypatch):
    monkeypatch.setattr(statistics, "REPLICATES", 200)
    random, trials = np.random.default_rng(23), 600
    shares = [0.6, 0.25, 0.15]

    def draw(item, gold, base, seeds=4, sd=0.2):
        return list(_counts(random, _simulate(random, seeds, sd, item, base), gold))

    def truth(base):
        big = 300_000
        item = random.normal(0, np.sqrt(1.4**2 + 0.5**2 + 0.2**2), big)
        counts = draw(item, random.choice(3, size=big, p=shares), base, 1, 0.0)[0].sum(0)
        return float(statistics.f1_of_counts(counts, "macro"))

    high, low, score_hits, gap_hits = truth(1.4), truth(1.0), 0, 0
    for _ in range(trials):
        groups, item = _grouped(random, 120, 1.4)
        gold = random.choice(3, size=len(item), p=shares)
        a, b = draw(item, gold, 1.4), draw(_grouped_like(random, groups, 1.4), gold, 1.0)
        one, both = score_interval(a, "macro", groups=groups), difference_interval(a, b, "macro", groups=groups)
        score_hits += one.low <= high <= one.high
        gap_hits += both.low <= high - low <= both.high
    assert 0.92 <= score_hits / trials <= 0.975
    assert 0.92 <= gap_hits / trials <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [5, 10])
def test_coverage_over_many_tables(n_seeds):
    """The claim itself, 92 to 97 %, over 4,000 tables: the sampling error of the coverage is 0.35 points."""
    random, trials = np.random.default_rng(31 + n_seeds), 4000
    truth, other = _true_score(0.25, 1.2), _true_score(0.15, 1.2, base=1.2)
    hits = gap_hits = 0
    for _ in range(trials):
        item = random.normal(0, 1.2, 300)
        a, b = _simulate(random, n_seeds, 0.25, item), _simulate(random, n_seeds, 0.15, item, base=1.2)
        one, both = score_interval(list(a)), difference_interval(list(b), list(a))
        hits += one.low <= truth <= one.high
        gap_hits += both.low <= other - truth <= both.high
    assert 0.92 <= hits / trials <= 0.97
    assert 0.92 <= gap_hits / trials <= 0.97


def _entity_runs(random, sizes, item, base, seeds, sd):
    """Counts (sentences, 3, 1) per seed: each of `sizes` gold entities is found by chance, and others are false positives."""
    effect = item[None] + base + random.normal(0, sd, size=(seeds, 1))
    p = 1 / (1 + np.exp(-effect))
    found, spurious = random.binomial(sizes[None], p), random.poisson(0.8 * (1 - p))
    return [np.stack([f, f + s, sizes], 1)[:, :, None] for f, s in zip(found, spurious, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["macro", "entity", "entity in documents"])
def test_coverage_of_f1_over_many_tables(metric, monkeypatch):
    """The claim for F1: macro over classes, micro over entities, and over entities grouped by document."""
    monkeypatch.setattr(statistics, "REPLICATES", 300)
    random, trials, seeds, shares = np.random.default_rng(len(metric)), 2000, 5, [0.6, 0.25, 0.15]
    average, documents = "macro" if metric == "macro" else "micro", metric.endswith("documents")

    def draw(item, known, base, count=seeds, sd=0.25):
        if metric == "macro":
            return list(_counts(random, _simulate(random, count, sd, item, base), known))
        return _entity_runs(random, known, item, base, count, sd)

    def gold(size):
        return random.choice(3, size=size, p=shares) if metric == "macro" else random.poisson(1.3, size)

    def truth(base):
        big = 400_000  # a seed's effect spreads over items like another item effect
        item = random.normal(0, np.hypot(1.3 if documents else 1.2, 0.25), big)
        return float(statistics.f1_of_counts(draw(item, gold(big), base, 1, 0.0)[0].sum(0), average))

    high, low, hits, gap_hits = truth(1.4), truth(1.0), 0, 0
    for _ in range(trials):
        groups, item = _grouped(random, 60, 1.2) if documents else (None, random.normal(0, 1.2, 250))
        known = gold(len(item))
        a, b = draw(item, known, 1.4), draw(item, known, 1.0)
        one, both = score_interval(a, average, groups=groups), difference_interval(a, b, average, groups=groups)
        hits += one.low <= high <= one.high
        gap_hits += both.low <= high - low <= both.high
    print(f"{metric}: score {100 * hits / trials:.1f} %, difference {100 * gap_hits / trials:.1f} %")
    assert 0.92 <= hits / trials <= 0.97
    assert 0.92 <= gap_hits / trials <= 0.97


def test_groups_of_one_change_nothing_and_one_group_is_ignored():
    random = np.random.default_rng(3)
    runs = list(_simulate(random, 4, 0.3, random.normal(0, 1, 200)))
    alone = score_interval(runs)
    assert score_interval(runs, groups=[f"g{i}" for i in range(200)]) == alone
    assert score_interval(runs, groups=["one"] * 200) == alone
    with pytest.raises(ValueError, match="3 groups for 200"):
        score_interval(runs, groups=["a", "b", "c"])


def test_copies_in_a_group_count_once():
    """Every example four times in one group: the same interval as without the copies, where four times n would halve it."""
    random = np.random.default_rng(4)
    runs = _simulate(random, 5, 0.2, random.normal(0, 1, 150))
    copied = np.repeat(runs, 4, axis=1)
    groups = np.repeat(np.arange(150).astype(str), 4)
    plain, grouped = score_interval(list(runs)), score_interval(list(copied), groups=groups)
    assert (grouped.value, grouped.se) == pytest.approx((plain.value, plain.se), rel=1e-9)
    counts, both = ([np.stack([r, np.ones_like(r), np.ones_like(r)], 1)[:, :, None] for r in x] for x in (runs, copied))
    assert score_interval(both, "micro", groups=groups).se == pytest.approx(score_interval(counts, "micro").se, rel=0.06)


def test_class_intervals_equal_those_of_each_class_alone():
    random = np.random.default_rng(6)
    gold = random.integers(0, 3, 200)
    runs = list(_counts(random, _simulate(random, 3, 0.2, random.normal(0, 1, 200)), gold))
    for label, found in enumerate(class_intervals(runs)):
        alone = score_interval([run[:, :, [label]] for run in runs], "binary")
        assert (found.value, found.se) == pytest.approx((alone.value, alone.se), rel=1e-6)


def test_f1_bootstrap_agrees_with_the_formula_where_f1_is_a_mean():
    """Micro-F1 with one prediction per example is accuracy, so both methods must give the same standard error."""
    random = np.random.default_rng(11)
    right = _simulate(random, 5, 0.3, random.normal(0, 1.0, 400))
    counts = [np.stack([run, np.ones(400), np.ones(400)], axis=1)[:, :, None] for run in right]
    mean, boot = score_interval(list(right)), score_interval(counts, "micro")
    assert boot.value == pytest.approx(mean.value, abs=1e-12)
    assert boot.se == pytest.approx(mean.se, rel=0.05)


def test_one_run_constant_and_identical_models():
    constant = score_interval([np.ones(10)] * 3)
    assert (constant.value, constant.low, constant.high) == (1.0, 1.0, 1.0)
    run = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    assert score_interval([run]).se == pytest.approx(run.std(ddof=1) / 10)
    same = difference_interval([run, run], [run, run])
    assert same.value == 0 and same.p == 1.0
    with pytest.raises(ValueError, match="10 examples against 9"):
        difference_interval([np.ones(10)], [np.ones(9)])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, float("nan")])[0] == pytest.approx(0.02)


# ---------------------------------------------------------------- correlations, and what is refused


def quadratic_kappa_of_scikit_learn(gold: np.ndarray, pred: np.ndarray) -> float:
    grades = np.round(np.stack([gold, pred]) * 10).astype(int)  # one decimal
    return cohen_kappa_score(*grades, labels=np.arange(grades.min(), grades.max() + 1), weights="quadratic")


PEERS = {
    "pearson": lambda gold, pred: stats.pearsonr(gold, pred).statistic,
    "spearman": lambda gold, pred: stats.spearmanr(gold, pred).statistic,
    "quadratic_kappa": quadratic_kappa_of_scikit_learn,
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("grouped", [False, True])
def test_correlations_are_resampled_as_pairs(name, grouped, monkeypatch):
    """Every bootstrap replicate is scipy's correlation or scikit-learn's kappa of the resampled pairs."""
    random = np.random.default_rng(3)
    gold = random.integers(0, 6, 40).astype(float)  # ties, as STS scores have
    runs = [np.stack([gold, np.round(gold + random.normal(0, 2, 40), 1)], 1) for _ in range(2)]
    groups = [f"g{n // 4}" for n in range(40)] if grouped else None
    monkeypatch.setattr(statistics, "REPLICATES", 30)
    made = statistics.sample(runs, name, groups)
    peer = PEERS[name]
    assert made.scores.tolist() == pytest.approx([peer(*run.T) for run in runs], abs=1e-12)
    (weights,) = statistics._weight_blocks(10 if grouped else 40, 30, 0)
    for drawn, line in zip(made.drawn, weights, strict=True):
        places = np.repeat(np.arange(40), np.repeat(line, 4).astype(int) if grouped else line.astype(int))
        assert drawn.tolist() == pytest.approx([peer(*run[places].T) for run in runs], abs=1e-9)


def test_coverage_of_a_correlation():
    random, hits, trials = np.random.default_rng(1), 0, 60
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # Spearman of a normal pair with Pearson 0.8
    for _ in range(trials):
        gold = random.normal(size=80)
        run = np.stack([gold, 0.8 * gold + 0.6 * random.normal(size=80)], 1)
        interval = score_interval([run], "spearman")
        hits += interval.low <= truth <= interval.high
    assert hits / trials >= 0.87  # 67 % where an interval is half as wide as it should be


def test_only_resamplable_scores_are_accepted():
    """A regression: pairs of scores and predictions were accepted as a mean, 0.252 as 1.115."""
    pairs = np.array([[4.6, 1.0], [0.0, 0.5], [2.0, 3.0]])
    counts = np.zeros((3, 3, 2), int)
    for run, average in ((pairs, "mean"), (pairs, "macro"), (counts, "mean"), (counts, "spearman"), (pairs[:, 0], "micro")):
        with pytest.raises(ValueError, match=f"average '{average}' cannot be computed from numbers of shape"):
            score_interval([run], average)
    with pytest.raises(ValueError, match="average 'kendall' is not known"):
        score_interval([pairs], "kendall")
    assert CORRELATIONS.keys() == PEERS.keys()  # one without its own formula would get Pearson's interval
    with pytest.raises(ValueError, match="cannot be computed from numbers"):
        class_intervals([pairs])


def test_a_negative_correlation_keeps_its_interval():
    gold = np.arange(50.0)
    interval = score_interval([np.stack([gold, -gold + np.random.default_rng(0).normal(0, 9, 50)], 1)], "pearson")
    assert -1 <= interval.low < interval.value < interval.high < 0
