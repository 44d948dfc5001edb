import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.duplicates import SLOTS, Signatures, choose_survivors, clusters, near_pairs

AGREEMENT = 0.7


def shingles(words):
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def signatures_of(keys):
    collector = Signatures()
    assert all(collector.add(key) for key in keys)
    return collector.finish()


@pytest.fixture(scope="module")
def planted():
    """Originals and copies with 0-30 % of their words replaced: keys, (original, copy, true Jaccard)."""
    chance = random.Random(7)
    vocabulary = [f"söz{i}" for i in range(5000)]
    keys, pairs = [], []
    for _ in range(1500):
        words = chance.choices(vocabulary, k=chance.randint(60, 300))
        copy = list(words)
        for place in chance.sample(range(len(copy)), int(chance.choice([0, 0.01, 0.02, 0.04, 0.08, 0.2]) * len(copy))):
            copy[place] = chance.choice(vocabulary)
        a, b = shingles(words), shingles(copy)
        pairs.append((len(keys), len(keys) + 1, len(a & b) / len(a | b)))
        keys += [" ".join(words), " ".join(copy)]
    return keys, pairs


def test_recall_by_jaccard_bin(planted):
    # A hash without wrap-around makes all slots choose one shingle: recall in the upper bin falls to .86 and far pairs merge.
    keys, pairs = planted
    found = {tuple(pair) for pair in near_pairs(signatures_of(keys), AGREEMENT).tolist()}
    hit = defaultdict(list)
    for left, right, jaccard in pairs:
        hit[">=.9" if jaccard >= 0.9 else ".8" if jaccard >= 0.8 else "<.5" if jaccard < 0.5 else "between"].append(
            (left, right) in found
        )
    assert min(map(len, hit.values())) >= 100
    assert np.mean(hit[">=.9"]) == 1
    assert np.mean(hit[".8"]) >= 0.95
    assert not any(hit["<.5"])
    assert found <= {(left, right) for left, right, _ in pairs}  # unrelated documents are never paired


def test_slots_are_independent_and_estimate_jaccard(planted):
    keys, pairs = planted
    signatures = signatures_of(keys)
    estimates = np.array([(signatures[left] == signatures[right]).mean() for left, right, _ in pairs])
    truth = np.array([jaccard for _, _, jaccard in pairs])
    assert abs((estimates - truth).mean()) < 0.005
    assert np.abs(estimates - truth).max() < 5 * 0.5 / np.sqrt(SLOTS)


def test_shared_boilerplate_does_not_merge():
    chance = random.Random(3)
    boilerplate = [f"b{i}" for i in range(60)]
    keys = [" ".join(boilerplate + [f"w{chance.randrange(10**6)}" for _ in range(60)]) for _ in range(300)]
    assert len(near_pairs(signatures_of(keys), AGREEMENT)) == 0


def test_a_signature_depends_on_its_document_alone(planted, monkeypatch):
    keys, _ = planted
    whole = signatures_of(keys[:50])
    assert np.array_equal(np.concatenate([signatures_of([key]) for key in keys[:50]]), whole)
    monkeypatch.setattr("corpus.duplicates.BATCH", 100)
    assert np.array_equal(signatures_of(keys[:50]), whole)


def test_short_documents_have_no_signature():
    collector = Signatures()
    assert [collector.add(key) for key in ("a b c d", "a b c d e", "")] == [False, True, False]
    assert collector.finish().shape == (1, SLOTS)
    assert near_pairs(Signatures().finish(), AGREEMENT).shape == (0, 2)


def test_a_large_group_of_equals_becomes_one_cluster():
    signatures = signatures_of(["bir iki üç dörd beş altı yeddi"] * 200)
    assert set(clusters(200, near_pairs(signatures, AGREEMENT)).tolist()) == {0}


@given(st.integers(1, 30), st.data())
def test_one_survivor_per_cluster(count, data):
    index = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(index, index)))
    ranks = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    cluster = clusters(count, np.array(pairs).reshape(-1, 2))
    for left, right in pairs:
        assert cluster[left] == cluster[right]
    survivors = choose_survivors(cluster, ranks)
    assert set(survivors) == set(cluster.tolist())
    for name, kept in survivors.items():
        members = [i for i in range(count) if cluster[i] == name]
        assert name == min(members)
        assert kept == min(i for i in members if ranks[i] == max(ranks[j] for j in members))
