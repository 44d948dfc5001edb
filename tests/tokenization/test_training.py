"""Training: the same bytes on any number of processes, weights, the errors that name a number, other people's files."""

import gzip
import json
import subprocess
import sys

import pytest
import sentencepiece
import tokenizers

from common.errors import UserError
from tests.tokenization.samples import ROOT, options, sentences, write_corpus
from tokenization import train
from tokenization.alphabet import ALWAYS, choose_alphabet
from tokenization.loading import load_tokenizer
from tokenization.proto import rounded_scores
from tokenization.train import count_words, train_tokenizer


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["wordpiece-uncased", "unigram-cased", "bpe-uncased"])
def test_same_bytes_in_another_process(name, built, trained, tmp_path):
    """A new interpreter has other hash seeds: what hung on the order of a hash table would show here."""
    code = (
        "import json, sys; from tokenization.train import train_tokenizer\n"
        "if __name__ == '__main__': train_tokenizer(json.loads(sys.argv[1]), sys.argv[2], sys.argv[3], 1)"
    )
    words = [json.dumps(options(name)), str(built), str(tmp_path / "again")]
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True)
    assert contents(tmp_path / "again") == contents(trained[name])


def test_same_bytes_on_two_processes(built, trained, tmp_path):
    train_tokenizer(options("wordpiece-uncased", processes=2), built, tmp_path, 1)
    assert contents(tmp_path) == contents(trained["wordpiece-uncased"])


def test_reused_only_when_nothing_changed(built, trained, capsys):
    train_tokenizer(options("bpe-cased", processes=2), built, trained["bpe-cased"], 1)
    assert "reused" in capsys.readouterr().out


def test_copies_are_counted():
    once = count_words([("ev ev yol", 1), ("dağ", 1)], options("wordpiece-cased"))
    thrice = count_words([("ev ev yol", 3), ("dağ", 1)], options("wordpiece-cased"))
    assert once == {"ev": 2, "dağ": 1, "yol": 1}
    assert thrice == {"ev": 6, "yol": 3, "dağ": 1}


@pytest.mark.parametrize("name", ["wordpiece-cased", "unigram-cased", "bpe-cased"])
def test_vocabulary_that_the_text_cannot_fill(name, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", ["bir iki üç dörd beş altı"] * 4)
    with pytest.raises(UserError, match=r"fills only [\d,]+ pieces"):
        train_tokenizer(options(name, vocab_size=60_000), corpus, tmp_path / "out", 1)
    with pytest.raises(UserError, match="vocab_size=20"):
        train_tokenizer(options(name, vocab_size=20), corpus, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "message"), [({"kind": "word"}, "kind=word"), ({"vocab": 3}, "tokenizer.vocab: no such"),
                                                 ({"vocab_size": "64k"}, "vocab_size=64k")])  # fmt: skip
def test_settings_that_cannot_work(change, message, built, tmp_path):
    with pytest.raises(UserError, match=message):
        train_tokenizer(options("bpe-cased") | change, built, tmp_path, 1)


def test_training_text_with_a_surrogate_is_named(tmp_path):
    corpus = write_corpus(tmp_path, ["bir iki"])
    with gzip.open(corpus / "documents" / "demo.jsonl.gz", "wt") as file:
        file.write('{"id": "d7", "source": "demo", "text": "a \\ud800 b"}\n')
    with pytest.raises(UserError, match="source demo, document d7: a lone surrogate"):
        train_tokenizer(options("bpe-cased"), corpus, tmp_path / "out", 1)


def test_no_text_at_all(tmp_path):
    with pytest.raises(UserError, match="no text to train"):
        train_tokenizer(options("bpe-cased"), write_corpus(tmp_path, ["   "]), tmp_path / "out", 1)


def test_scores_are_on_the_grid(trained):
    native = sentencepiece.SentencePieceProcessor(model_file=str(trained["unigram-cased"] / "tokenizer.model"))
    scores = [native.get_score(index) for index in range(native.get_piece_size())]
    assert all(score * 64 == int(score * 64) for score in scores)
    proto = native.serialized_model_proto()
    assert rounded_scores(proto, 1 / 64) == proto


def test_damaged_and_missing_files(trained, tmp_path):
    cases = (("wordpiece-cased", "tokenizer.json"), ("bpe-cased", "tokenizer.model"), ("bpe-cased", "tokenizer.json"))
    for name, victim in cases:
        folder = tmp_path / f"{name}-{victim}"
        load_tokenizer(trained[name]).save(folder)
        whole = (folder / victim).read_bytes()
        (folder / victim).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=victim):
            load_tokenizer(folder)
        (folder / victim).unlink()
        with pytest.raises(UserError, match="missing"):
            load_tokenizer(folder)
    with pytest.raises(UserError, match="no such file"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"vocab\.txt"):
        load_tokenizer(tmp_path)
    folder = tmp_path / "swapped"
    load_tokenizer(trained["wordpiece-cased"]).save(folder)
    (folder / "tokenizer.json").write_bytes((trained["wordpiece-uncased"] / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="changed since"):
        load_tokenizer(folder)


def test_import_vocab_txt(tmp_path):
    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sal", "##am", "dun", "##ya", "!", "dünya"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": null}')
    for path in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.pieces == pieces
        text = ["Salam dünya!"]
        theirs = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True)(text, add_special_tokens=False)
        assert [pieces[i] for i in tokenizer.encode_batch(text)[0]] == ["sal", "##am", "dun", "##ya", "!"]
        assert tokenizer.encode_batch(text)[0].tolist() == theirs["input_ids"][0]
        assert tokenizer.continues.tolist() == [piece.startswith("##") for piece in pieces]
        assert tokenizer.mask_id == 4
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode_batch(text)[0].tolist() == tokenizer.encode_batch(text)[0].tolist()
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces, "sal"]))
    with pytest.raises(UserError, match=r"line 12.*twice"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces[1:]))
    with pytest.raises(UserError, match=r"pad_token \(no name known\)"):
        load_tokenizer(tmp_path)


def test_import_tokenizer_json_with_other_names(tmp_path):
    names = ("<s>", "<pad>", "</s>", "<unk>", "▁sal", "am", "!", "<mask>")
    vocabulary = [(name, -float(index)) for index, name in enumerate(names)]
    engine = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=3))
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    engine.enable_truncation(2)
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2, 3, 7)
    assert tokenizer.encode_batch(["salam!"])[0].tolist() == [4, 5, 6]  # the file's own truncation is not ours
    assert tokenizer.continues[4:7].tolist() == [False, True, False]


def test_import_sentencepiece_model(trained, tmp_path):
    path = tmp_path / "other.model"
    path.write_bytes((trained["unigram-cased"] / "tokenizer.model").read_bytes())
    tokenizer = load_tokenizer(path)
    assert tokenizer.kind == "sentencepiece"
    (ids,), (encoding,) = tokenizer.encode_batch(["kitablar evdə"]), tokenizer.encode_with_offsets(["kitablar evdə"])
    assert ids.tolist() == encoding.ids.tolist() and encoding.offsets[-1, 1] == len("kitablar evdə")
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").identity == tokenizer.identity
    plain = tmp_path / "plain.model"
    lines = iter(sentences()[:200])
    with plain.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=file, vocab_size=150, minloglevel=2)
    with pytest.raises(UserError, match=r"plain.model: .*mask_token"):
        load_tokenizer(plain)
    assert load_tokenizer(plain, need_special=False).mask_id == -1


def test_import_of_a_multilingual_cased_vocabulary(tmp_path):
    """A vocab.txt as mBERT's: cased, accents kept, Chinese characters apart; what transformers makes of it is what we do."""
    from transformers import BertTokenizerFast

    pieces = [
        *(
            "[PAD]",
            "[unused1]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "Sal",
            "##am",
            "Q",
            "##ız",
            "##ıl",
            "dün",
            "##ya",
            "!",
            "中",
            "国",
        ),
        *("İ", "##l", "##k", "q", "##iz"),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 512}')
    tokenizer = load_tokenizer(tmp_path)
    other = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), do_lower_case=False)
    texts = ["Salam dünya!", "Qızıl qiz İlk", "中国 Salam", "naməlum söz", ""]
    theirs = other(texts, add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, encoding in zip(
        theirs["input_ids"], theirs["offset_mapping"], tokenizer.encode_with_offsets(texts), strict=True
    ):
        assert encoding.ids.tolist() == ids
        assert [tuple(pair) for pair in encoding.offsets.tolist()] == offsets
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 2, 3, 4, 5)
    assert not tokenizer.lowercase


def test_import_of_an_xlmr_folder(tmp_path):
    """A folder as transformers saves XLM-R's: same ids and offsets; the bare .model, numbered otherwise, is refused."""
    from transformers import XLMRobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁sal", "am", "▁", "ü", "!", "▁dün", "ya", "q", "ı", "z", "<mask>"]
    other = XLMRobertaTokenizer(vocab=[(piece, -float(index)) for index, piece in enumerate(pieces)])
    other.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    texts = ["salam dünya!", "qız ﬁ  Salam\u200b ö", ""]
    theirs = other(texts, add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, batch, encoding in zip(
        theirs["input_ids"], theirs["offset_mapping"], tokenizer.encode_batch(texts),
        tokenizer.encode_with_offsets(texts), strict=True,
    ):  # fmt: skip
        assert batch.tolist() == encoding.ids.tolist() == ids
        assert [tuple(pair) for pair in encoding.offsets.tolist()] == offsets
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2, 3, 14)
    (tmp_path / "tokenizer.json").unlink()
    with (tmp_path / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()[:200]), model_writer=file, vocab_size=150, minloglevel=2
        )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(UserError, match=r"numbers these pieces otherwise. Put its tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_alphabet_is_filled_up():
    words = {"söz": 5, "中": 4, "ж": 1}
    large = choose_alphabet(words, 1000, 64_000, False, False)
    assert set(ALWAYS) | {"中", "ж", "👍", "₺", "Ж", "გ", "é"} <= set(large) and len(large) <= 1000
    assert large == sorted(set(large)) and not any(c.isspace() for c in large)
    assert not {"’", "“", "▁", "\u00ad"} & set(large)  # the normaliser leaves none of them
    uncased = choose_alphabet(words, 1000, 64_000, True, True)
    assert "👍" in uncased and not {"é".upper(), "ш", "Ш"} & set(uncased)
    assert set(choose_alphabet(words, 1000, 4_000, False, False)) == set(ALWAYS) | {"中", "ж"}  # a small one: no room
    assert set(choose_alphabet(words, 1, 64_000, False, False)) == set(ALWAYS)


def test_large_counts_are_scaled_down():
    """Unigram's trainer lays words out as often as they were counted: counts a thousand times as high, the same model."""
    words = {"kitab": 9, "kitablar": 5, "evdə": 4, "evlər": 3, "kitabdan": 2, "evdən": 2}
    settings = {"kind": "unigram", "vocab_size": 375, "lowercase": True}
    small = train._train_sentencepiece(settings, words)
    size = sum(count * (len(word.encode()) + 1) for word, count in words.items())
    large = train._train_sentencepiece(settings, {word: 1000 * count for word, count in words.items()}, size)
    assert large.identity == small.identity
    with pytest.raises(UserError, match=r"vocab_size=300: 371 pieces are needed"):
        train._train_sentencepiece(settings | {"vocab_size": 300}, words)
