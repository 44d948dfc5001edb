import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.matching.duplicates import FileStore, Store, exact_groups, join, near_clusters, near_pairs, survivors
from corpus.matching.signatures import SLOTS, Signatures, band_keys
from corpus.stages.parts import save_array

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
    # A hash without wrap-around makes all slots choose one shingle: recall in the upper bin drops to .86 and far pairs merge.
    keys, pairs = planted
    found = {tuple(pair) for pair in near_pairs(signatures_of(keys), AGREEMENT).tolist()}
    hit = defaultdict(list)
    for left, right, jaccard in pairs:
        hit[">=.9" if jaccard >= 0.9 else ".8" if jaccard >= 0.8 else "<.5" if jaccard < 0.5 else "between"].append(
            (left, right) in found
        )
    assert min(map(len, hit.values())) >= 100
    assert np.mean(hit[">=.9"]) == 1
    assert np.mean(hit[".8"]) >= 0.98
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


def test_a_signature_depends_on_its_document_only(planted, monkeypatch):
    keys, _ = planted
    whole = signatures_of(keys[:50])
    assert np.array_equal(np.concatenate([signatures_of([key]) for key in keys[:50]]), whole)
    monkeypatch.setattr("corpus.matching.signatures.BATCH", 100)
    assert np.array_equal(signatures_of(keys[:50]), whole)


def test_short_documents_have_no_signature():
    collector = Signatures()
    assert [collector.add(key) for key in ("a b c d", "a b c d e", "")] == [False, True, False]
    assert collector.finish().shape == (1, SLOTS)
    assert near_pairs(Signatures().finish(), AGREEMENT).shape == (0, 2)


def clusters_of(signatures, agreement=AGREEMENT):
    return near_clusters(Store(signatures), np.arange(len(signatures)), agreement)


def test_clusters_equal_those_of_joining_all_pairs(planted, tmp_path, monkeypatch):
    """Joining one band and partition at a time, skipping pairs within a cluster, gives the clusters of all pairs."""
    signatures = signatures_of(planted[0])
    parent = np.arange(len(signatures))
    pairs = near_pairs(signatures, AGREEMENT)
    for left, right in pairs.tolist():
        a, b = (min(np.flatnonzero(parent == parent[x])) for x in (left, right))
        parent[(parent == parent[a]) | (parent == parent[b])] = min(a, b)
    assert np.array_equal(clusters_of(signatures), parent)
    pieces = np.array_split(signatures, 7)
    for number, piece in enumerate(pieces):
        save_array(tmp_path / f"{number}.signatures.npy", piece)
        save_array(tmp_path / f"{number}.bands.npy", band_keys(piece))
    store = FileStore([tmp_path / str(number) for number in range(7)], [len(piece) for piece in pieces])
    half = np.arange(0, len(signatures), 3)  # rows that are left out join nothing
    of_half = clusters_of(signatures[half])
    for at_once in (1 << 17, 100):
        monkeypatch.setattr("corpus.matching.hash_partitions.AT_ONCE", at_once)
        assert np.array_equal(near_clusters(store, np.arange(len(signatures)), AGREEMENT, tmp_path), parent)
        assert np.array_equal(near_clusters(store, half, AGREEMENT, tmp_path), of_half)


def test_a_large_group_becomes_one_cluster():
    """More than ALL_PAIRS near copies of one text, no two of them equal."""
    words = [f"söz{i}" for i in range(400)]
    keys = [" ".join([*words[:i], "başqa", *words[i + 1 :]]) for i in range(0, 400, 3)]
    assert set(clusters_of(signatures_of(keys)).tolist()) == {0}


@given(st.lists(st.integers(0, 5), max_size=40))
def test_exact_groups_name_the_first(values):
    digests = np.array([[value, value * 7 % 3] for value in values], dtype=np.uint64).reshape(-1, 2)
    assert exact_groups(digests).tolist() == [values.index(value) for value in values]


@given(st.integers(1, 30), st.data())
def test_one_survivor_per_cluster(count, data):
    index = st.integers(0, count - 1)
    pairs = np.array(data.draw(st.lists(st.tuples(index, index))), dtype=np.int64).reshape(-1, 2)
    ranks = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    parent = np.arange(count)
    join(parent, pairs[:, 0], pairs[:, 1])
    cluster = np.arange(count)
    for _ in range(count):  # the plain way: the smaller name spreads along the pairs
        for left, right in pairs.tolist():
            cluster[left] = cluster[right] = min(cluster[left], cluster[right])
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    assert np.array_equal(parent, cluster)
    kept = survivors(cluster, ranks)
    for name in set(cluster.tolist()):
        members = np.flatnonzero(cluster == name).tolist()
        assert {int(kept[i]) for i in members} == {min(i for i in members if ranks[i] == max(ranks[members]))}
