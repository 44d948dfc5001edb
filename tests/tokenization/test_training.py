"""Training: the same bytes on any number of processes, weights, the errors that name a number, other people's files."""

import gzip
import re
import subprocess
import sys

import pytest
import sentencepiece
import tokenizers

from common.errors import UserError
from language.azerbaijani import LANGUAGE as AZ
from tests.tokenization.samples import ROOT, options, sentences, write_corpus
from tokenization import train
from tokenization.alphabet import always, choose_alphabet
from tokenization.loading import load_tokenizer
from tokenization.proto import rounded_scores
from tokenization.train import count_words, train_tokenizer


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["wordpiece-uncased", "unigram-cased", "bpe-uncased"])
def test_same_bytes_in_another_process(name, built, trained, tmp_path):
    """A new interpreter has other hash seeds, so an order that depends on a hash table would show here."""
    code = (
        "import sys; from tokenization.train import train_tokenizer; from tests.tokenization.samples import options\n"
        "if __name__ == '__main__': train_tokenizer(options(sys.argv[1]), sys.argv[2], sys.argv[3], 1)"
    )
    words = [name, str(built), str(tmp_path / "again")]
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, capture_output=True)
    assert contents(tmp_path / "again") == contents(trained[name])


def test_same_bytes_on_two_processes(built, trained, tmp_path):
    train_tokenizer(options("wordpiece-uncased", processes=2), built, tmp_path, 1)
    assert contents(tmp_path) == contents(trained["wordpiece-uncased"])


def test_reused_only_when_nothing_changed(built, trained, capsys):
    train_tokenizer(options("bpe-cased", processes=2), built, trained["bpe-cased"], 1)
    assert "already complete" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["wordpiece-cased", "unigram-cased", "bpe-cased", "phrases-uncased"])
def test_a_word_past_the_bound_teaches_nothing(name):
    """The trainers' time grows with the square of a word: one of 300,000 characters held prepare.py for minutes."""
    texts = [(text, 1) for text in sentences()[:50]]
    most = train.LONGEST[options(name).kind]
    longer = [("ab" * 150_000, 1), ("ş" * (most + 1) + " söz", 1), ("söz", 1)]
    counted = count_words([*texts, *longer], options(name), AZ)
    assert counted == count_words([*texts, ("söz", 2)], options(name), AZ)
    assert "ş" * most in count_words([("ş" * most, 1)], options(name), AZ)


def test_copies_are_counted():
    once = count_words([("ev ev yol", 1), ("dağ", 1)], options("wordpiece-cased"), AZ)
    thrice = count_words([("ev ev yol", 3), ("dağ", 1)], options("wordpiece-cased"), AZ)
    assert once == {"ev": 2, "dağ": 1, "yol": 1}
    assert thrice == {"ev": 6, "yol": 3, "dağ": 1}


@pytest.mark.parametrize("name", ["wordpiece-cased", "unigram-cased", "bpe-cased"])
def test_a_vocabulary_that_the_text_cannot_fill(name, tmp_path):
    corpus = write_corpus(tmp_path / "corpus", ["bir iki üç dörd beş altı"] * 4)
    with pytest.raises(UserError, match=r"fills only [\d,]+ tokens") as caught:
        train_tokenizer(options(name, vocab_size=60_000), corpus, tmp_path / "out", 1)
    named = int(re.search(r"fills only ([\d,]+)", str(caught.value))[1].replace(",", ""))
    with pytest.raises(UserError, match="vocab_size=20"):
        train_tokenizer(options(name, vocab_size=20), corpus, tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()
    assert train_tokenizer(options(name, vocab_size=named), corpus, tmp_path / "out", 1).vocab_size == named  # it can be set


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "word"}, "kind=word"),
        ({"phrases": 3}, "phrases=3: for kind=wordpiece"),
        ({"vocab": 3}, "tokenizer.vocab: no such"),
        ({"vocab_size": "64k"}, "vocab_size=64k"),
    ],
)
def test_settings_that_cannot_work(change, message):
    with pytest.raises(UserError, match=message):
        options("bpe-cased", **change)


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

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sal", "##am", "dun", "##ya", "!", "dünya"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "strip_accents": null}')
    for path in (tmp_path, tmp_path / "vocab.txt"):
        tokenizer = load_tokenizer(path)
        assert tokenizer.tokens == tokens
        text = ["Salam dünya!"]
        theirs = BertTokenizerFast(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True)(text, add_special_tokens=False)
        assert [tokens[i] for i in tokenizer.encode_batch(text)[0]] == ["sal", "##am", "dun", "##ya", "!"]
        assert tokenizer.encode_batch(text)[0].tolist() == theirs["input_ids"][0]
        assert tokenizer.continues.tolist() == [token.startswith("##") for token in tokens]
        assert tokenizer.mask_id == 4
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").encode_batch(text)[0].tolist() == tokenizer.encode_batch(text)[0].tolist()
    (tmp_path / "vocab.txt").write_text("\n".join([*tokens, "sal"]))
    with pytest.raises(UserError, match=r"line 12.*twice"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(tokens[1:]))
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
    assert tokenizer.encode_batch(["salam!"])[0].tolist() == [4, 5, 6]  # the file's own truncation is ignored
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
    """A vocab.txt like mBERT's: cased, accents kept, Chinese characters separate; equal to transformers."""
    from transformers import BertTokenizerFast

    tokens = [
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
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
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
    """A folder as transformers saves XLM-R's: same ids and offsets; the bare .model, whose ids differ, is refused."""
    from transformers import XLMRobertaTokenizer

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁sal", "am", "▁", "ü", "!", "▁dün", "ya", "q", "ı", "z", "<mask>"]
    other = XLMRobertaTokenizer(vocab=[(token, -float(index)) for index, token in enumerate(tokens)])
    other.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    texts = ["salam dünya!", "qız ﬁ  Salam\u200b ö", ""]
    theirs = other(texts, add_special_tokens=False, return_offsets_mapping=True)
    for ids, offsets, batch, encoding in zip(
        theirs["input_ids"],
        theirs["offset_mapping"],
        tokenizer.encode_batch(texts),
        tokenizer.encode_with_offsets(texts),
        strict=True,
    ):
        assert batch.tolist() == encoding.ids.tolist() == ids
        assert [tuple(pair) for pair in encoding.offsets.tolist()] == offsets
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.mask_id) == (0, 1, 2, 3, 14)
    (tmp_path / "tokenizer.json").unlink()
    with (tmp_path / "sentencepiece.bpe.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()[:200]), model_writer=file, vocab_size=150, minloglevel=2
        )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    with pytest.raises(UserError, match=r"numbers these tokens otherwise. Put its tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_alphabet_is_filled_up():
    words = {"söz": 5, "中": 4, "ж": 1}
    large = choose_alphabet(words, 1000, 64_000, AZ, False, False)
    assert set(always(AZ)) | {"中", "ж", "👍", "₺", "Ж", "გ", "é"} <= set(large) and len(large) <= 1000
    assert large == sorted(set(large)) and not any(c.isspace() for c in large)
    assert not {"’", "“", "▁", "\u00ad"} & set(large)  # the normaliser leaves none of them
    uncased = choose_alphabet(words, 1000, 64_000, AZ, True, True)
    assert "👍" in uncased and not {"é".upper(), "ш", "Ш"} & set(uncased)
    assert set(choose_alphabet(words, 1000, 4_000, AZ, False, False)) == set(always(AZ)) | {"中", "ж"}  # a small one: no room
    assert set(choose_alphabet(words, 1, 64_000, AZ, False, False)) == set(always(AZ))


def test_large_counts_are_scaled_down():
    """Unigram's trainer repeats words as often as they were counted: counts a thousand times as high give the same model."""
    words = {"kitab": 9, "kitablar": 5, "evdə": 4, "evlər": 3, "kitabdan": 2, "evdən": 2}
    settings = options("unigram-uncased", vocab_size=375)
    small = train._train_sentencepiece(settings, words, AZ)
    size = sum(count * (len(word.encode()) + 1) for word, count in words.items())
    large = train._train_sentencepiece(settings, {word: 1000 * count for word, count in words.items()}, AZ, size)
    assert large.identity == small.identity
    with pytest.raises(UserError, match=r"vocab_size=300: 371 tokens are needed"):
        train._train_sentencepiece(options("unigram-uncased", vocab_size=300), words, AZ)
