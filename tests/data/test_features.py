"""Task features: nothing is lost or scored twice, answers are found again, orders are pure functions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.launch import ROOT
from data.features import collate, encode, sorted_batches, steps_of_epoch
from tasks.base import Rows
from tasks.encoding import cut_longest_first, join, swap_pair
from tasks.qa import ANSWER_WORDS, best_answer, max_context, windows
from tasks.records import load_task_file
from tasks.tagging import split_sentence
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

TASKS = ROOT / "data" / "demo" / "tasks"


@pytest.fixture(scope="session")
def tokenizer(prepared) -> Tokenizer:
    return load_tokenizer(prepared / "tokenizer")


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 70))
def test_longest_first_is_one_token_at_a_time(a, b, room):
    left, right = a, b
    while left + right > room:  # as in the tokenizers library: at a tie the second text is shortened
        left, right = (left - 1, right) if left > right else (left, right - 1)
    assert cut_longest_first(a, b, room) == (left, right)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(9, 30))
def test_every_word_of_a_long_sentence_belongs_to_one_part(lengths, room):
    lengths = np.array(lengths)
    parts = split_sentence(lengths, room)
    owned = np.concatenate([own for _, _, own in parts])
    assert sorted(owned) == list(range(len(lengths)))
    for begin, end, own in parts:
        assert lengths[begin:end].sum() <= room
        assert begin <= own.min() and own.max() < end
    if len(parts) > 1:
        assert lengths.sum() > room


def test_words_at_a_cut_are_scored_where_they_have_context():
    (_, _, first), (second, _, own) = split_sentence(np.ones(30, int), 20)
    assert second <= 15  # a quarter of 20 is shared
    assert first[-1] == own[0] - 1
    assert own[0] - second >= 2 and 20 - 1 - first[-1] >= 2  # neither part scores the words next to its cut


@given(st.integers(0, 500), st.integers(2, 80), st.data())
def test_windows_cover_and_share(length, room, data):
    overlap = data.draw(st.integers(0, room - 1))
    spans = windows(length, room, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(end - begin <= room for begin, end in spans)
    assert all(before[1] - after[0] == overlap for before, after in itertools.pairwise(spans))
    owner = max_context(spans, length)
    assert all(spans[o][0] <= place < spans[o][1] for place, o in enumerate(owner))


def test_pair_row_is_cls_a_sep_b_sep(tokenizer):
    example = {"id": "1", "text": "Bakı böyük şəhərdir", "text_b": "Şəhər dəniz sahilindədir", "label": "1"}
    row = encode([example], "pair", tokenizer, ["0", "1"], 64).rows[0]
    a, b = tokenizer.encode_batch([example["text"], example["text_b"]])
    assert row.ids.tolist() == [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
    assert row.targets.tolist() == [1]
    batch = collate(encode([example, example], "pair", tokenizer, ["0", "1"], 64), np.array([0, 1]))
    once = [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert batch.token_types.tolist() == once * 2
    assert batch.positions.tolist() == [0, len(row.ids)]


def test_what_is_cut_is_counted(tokenizer):
    examples = [{"id": "1", "text": "qısa mətn", "label": "a"}, {"id": "2", "text": "uzun mətn " * 50, "label": "a"}]
    encoded = encode(examples, "classification", tokenizer, ["a", "b"], 32)
    assert encoded.truncated == [False, True]
    assert encoded.tokens(1) == 32
    assert any("1 of 2 examples were cut" in note for note in encoded.notes)


def test_special_tokens_in_text_stay_text(tokenizer):
    encoded = encode([{"id": "1", "text": "[MASK] [SEP] [CLS]", "label": "a"}], "classification", tokenizer, ["a"], 64)
    ids = encoded.rows[0].ids
    assert tokenizer.mask_id not in ids and (ids == tokenizer.sep_id).sum() == 1 and (ids == tokenizer.cls_id).sum() == 1


def test_a_word_without_a_token_becomes_unk_and_is_scored(tokenizer):
    example = {"id": "1", "words": ["Bakı", "\u00ad", "\u200b", "şəhəri"], "tags": ["B-LOC", "O", "O", "O"]}
    row = encode([example], "tagging", tokenizer, ["O", "B-LOC"], 64).rows[0]
    assert row.words.tolist() == [0, 1, 2, 3] and row.targets.tolist() == [1, 0, 0, 0]
    first = [ids[0] if len(ids) else tokenizer.unk_id for ids in tokenizer.encode_batch(example["words"])]
    assert row.ids[row.positions].tolist() == first


def test_every_word_of_the_demo_is_scored_once_even_in_tiny_rows(tokenizer):
    examples = load_task_file(TASKS / "ner.conll", "tagging").examples
    labels = sorted({tag for example in examples for tag in example["tags"]})
    encoded = encode(examples, "tagging", tokenizer, labels, 16)
    assert len(encoded.rows) > len(examples)
    for number, example in enumerate(examples):
        rows = encoded.rows[encoded.first[number] : encoded.first[number + 1]]
        found = {int(word): labels[tag] for row in rows for word, tag in zip(row.words, row.targets, strict=True)}
        assert sum(len(row.words) for row in rows) == len(example["words"])
        assert [found[word] for word in range(len(example["words"]))] == example["tags"]
        assert all(len(row.ids) <= 16 for row in rows)


def test_demo_answers_are_found_again_through_windows(tokenizer):
    """Scores that point at the targets give the gold answer, whichever windows contain it."""
    examples = load_task_file(TASKS / "qa.jsonl", "qa").examples
    encoded = encode(examples, "qa", tokenizer, None, 96)
    assert len(encoded.rows) > len(examples)
    answered = 0
    for number, example in enumerate(examples):
        rows = encoded.rows[encoded.first[number] : encoded.first[number + 1]]
        scores = []
        for row in rows:
            part = np.zeros((len(row.ids), 2))
            part[row.targets[0], 0] += 5
            part[row.targets[1], 1] += 5
            scores.append(part)
        text, best, null = best_answer(example["context"], Rows(encoded, number), scores)
        reachable = any(row.targets[1] > 0 for row in rows)
        if not example["answers"]:
            assert not reachable and null == 10
        elif reachable:
            answered += 1
            assert example["answers"][0]["text"] in text and len(text) <= len(example["answers"][0]["text"]) + 20
            assert text in example["context"] and best == 10
    assert answered >= 0.9 * sum(bool(example["answers"]) for example in examples)


def test_best_answer_is_the_best_of_all_spans(tokenizer):
    random = np.random.default_rng(0)
    context = " ".join(f"söz{n}  " if n % 3 else f"ad{n}," for n in range(60))
    encoded = encode([{"id": "1", "context": context, "question": "Nə?"}], "qa", tokenizer, None, 64, 20)
    rows, offsets = encoded.rows, encoded.offsets[0]
    spans = [(row.begin, row.begin + len(row.ids) - row.second - 1) for row in rows]
    assert len(rows) > 2
    for _ in range(5):
        scores = [random.normal(size=(len(row.ids), 2)) for row in rows]
        found = []
        for window, (row, (begin, end)) in enumerate(zip(rows, spans, strict=True)):
            for i in range(begin, end):
                nearer = [min(i - a, b - 1 - i) + 0.01 * (b - a) if a <= i < b else -1 for a, b in spans]
                if int(np.argmax(nearer)) != window:
                    continue
                for j in range(i, end):
                    text = context[offsets[i, 0] : offsets[j, 1]]
                    if len(text.split()) <= ANSWER_WORDS:
                        place = row.second - begin
                        found.append((scores[window][i + place, 0] + scores[window][j + place, 1], text))
        text, best, null = best_answer(context, Rows(encoded, 0), scores)
        assert (best, text) == (pytest.approx(max(found)[0]), max(found)[1])
        assert null == pytest.approx(min(part[0].sum() for part in scores))


def test_windows_that_cannot_advance_are_refused(tokenizer):
    example = {"id": "q7", "context": "mətn " * 80, "question": "Nə?"}
    with pytest.raises(UserError, match=r"window_overlap_tokens=60.*q7"):
        encode([example], "qa", tokenizer, None, 64, 60)
    with pytest.raises(UserError, match="max_length=8"):
        encode([example], "qa", tokenizer, None, 8)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 20), st.sampled_from([1, 3, 50]), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_is_every_example_once(tokenizer, count, batch_size, length_group, seed, epoch):
    random = np.random.default_rng(count)
    lengths = random.integers(1, 9, count)
    examples = [
        {"id": str(n), "question": "sual " * int(length), "options": ["a", "b", "c"][: 2 + n % 2], "label": 0}
        for n, length in enumerate(lengths)
    ]
    encoded = encode(examples, "choice", tokenizer, None, 32)
    steps = steps_of_epoch(encoded, batch_size, 40, length_group, seed, epoch)
    rows = np.concatenate([rows for step in steps for rows in step])
    assert sorted(rows) == list(range(len(encoded.rows)))
    assert len(steps) == -(-count // batch_size)
    owner = np.searchsorted(encoded.first, rows, side="right")
    sizes = [sum(len(np.unique(np.searchsorted(encoded.first, part, side="right"))) for part in step) for step in steps]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size
    assert (np.diff(np.flatnonzero(np.diff(owner, prepend=-1))) >= 2).all()  # options stay together
    again = steps_of_epoch(encoded, batch_size, 40, length_group, seed, epoch)
    assert all(np.array_equal(a, b) for x, y in zip(steps, again, strict=True) for a, b in zip(x, y, strict=True))
    for step in steps:
        for part in step:
            questions = len(np.unique(np.searchsorted(encoded.first, part, side="right")))
            assert questions == 1 or sum(len(encoded.rows[row].ids) for row in part) <= 40
    scored = np.concatenate(sorted_batches(encoded, 40))
    assert sorted(scored) == list(range(len(encoded.rows)))


def test_orders_differ_by_epoch_and_seed(tokenizer):
    encoded = encode([{"id": str(n), "text": "mətn", "label": "a"} for n in range(40)], "classification", tokenizer, ["a"], 32)

    def order(seed, epoch):
        return np.concatenate([rows for step in steps_of_epoch(encoded, 8, 999, 1, seed, epoch) for rows in step]).tolist()

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_swap_pair_gives_the_pairs_in_the_other_order(tokenizer):
    texts = [("Bakı böyük şəhərdir.", "Gəncə də."), ("Qış gəldi " * 20, "Yay getdi"), ("a", "b")]
    pairs = [{"id": str(n), "text": a, "text_b": b, "label": "x"} for n, (a, b) in enumerate(texts)]
    turned = [{**pair, "text": pair["text_b"], "text_b": pair["text"]} for pair in pairs]
    straight, other = (encode(examples, "pair", tokenizer, ["x", "y"], 24) for examples in (pairs, turned))
    assert straight.truncated == [False, True, False]
    made = swap_pair(straight)
    for row, expected in zip(made.rows, other.rows, strict=True):
        assert row.ids.tolist() == expected.ids.tolist() and row.second == expected.second
        assert row.targets == expected.targets and row.positions == expected.positions
    for row, expected in zip(swap_pair(made).rows, straight.rows, strict=True):
        assert row.ids.tolist() == expected.ids.tolist() and row.second == expected.second
    # Both texts are cut: the same tokens of each are used in either order.
    long = encode([{"text": "bir iki üç " * 20, "text_b": "dörd beş altı " * 20}], "pair", tokenizer, ["x"], 24)
    a, b = (long.rows[0].ids[1 : long.rows[0].second - 1], long.rows[0].ids[long.rows[0].second : -1])
    assert swap_pair(long).rows[0].ids.tolist() == join(tokenizer, b, a)[0].tolist()
