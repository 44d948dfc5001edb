"""Tagged words, masks in text and offsets: the same as transformers for every family of tokenizer, ours and imported."""

import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers

from common.files import read_json, write_json
from data.features import encode
from tests.model.peers import FAMILIES, TEXTS, TYPES, write_tokenizer
from tests.tokenization.samples import HARD, KINDS, sentences
from tokenization.loading import load_tokenizer

transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
NAMES = [*FAMILIES, *KINDS]


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory):
    """The folder of each tokenizer: six imported families and those that we train."""
    made = dict(trained)
    for family in FAMILIES:
        made[family] = tmp_path_factory.mktemp(family)
        write_tokenizer(made[family], family)
        write_json(made[family] / "config.json", {"model_type": TYPES.get(family, family)})
    return made


def loaded(folder, name: str, **more):
    """The tokenizer from its file; transformers' class for XLM-R would build its own rules."""
    kind = transformers.PreTrainedTokenizerFast if name == "xlm-roberta" else transformers.AutoTokenizer
    return kind.from_pretrained(str(folder), **more)


def peer_of(folder, name: str):
    """transformers' tokenizer of a folder; for words it gets the prefix space that its class omits for a ModernBERT."""
    other = loaded(folder, name, add_prefix_space=True)
    if name == "modernbert":
        other.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return other


def words_of(other, name: str, words: list[str]) -> list[int]:
    read = {"add_special_tokens": False, "split_special_tokens": True}
    if name == "mmbert":  # a class without a prefix space: each word as after a space
        return [index for word in words for index in other(f" {word}", **read)["input_ids"]]
    return other(words, is_split_into_words=True, **read)["input_ids"]


WORDS = st.one_of(
    st.sampled_from([word for text in [*TEXTS, *HARD] for word in text.split()]),
    st.text(st.sampled_from("abcəğıİIiöşüç Яже\u0301\u00ad\u200b’-.,19<[]>😀\n"), min_size=1, max_size=8).filter(
        lambda word: word[0] != " "
    ),
)


@pytest.mark.parametrize("name", NAMES)
def test_words_of_a_sentence_equal_transformers(name, folders):
    tokenizer, other = load_tokenizer(folders[name]), peer_of(folders[name], name)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(WORDS, min_size=1, max_size=8))
    def run(words):
        assert np.concatenate(tokenizer.encode_words(words)).tolist() == words_of(other, name, words)

    run()
    with pytest.raises(Exception, match="lone surrogate"):
        tokenizer.encode_words(["söz", "a\ud83d"])


@pytest.mark.parametrize("name", NAMES)
def test_tagged_rows_equal_the_running_text(name, folders):
    """A tagged sentence has the ids of its running text; the first word of a byte-level text gets a space."""
    tokenizer = load_tokenizer(folders[name])
    words = ["Bakı", "Azərbaycanın", "paytaxtı", "və", "ən", "böyük", "şəhəridir"]
    row = encode([{"id": "1", "words": words, "tags": ["O"] * 7}], "tagging", tokenizer, ["O"], 128).rows[0]
    text = " ".join(words)
    spaced = f" {text}" if name in ("roberta", "modernbert", "mmbert") else text
    if name == "mmbert":  # merges of Gemma's BPE go over word borders, so running text may join two words
        assert all(tokenizer.tokens[ids[0]].startswith("▁") for ids in tokenizer.encode_words(words))
    else:
        assert row.ids[1:-1].tolist() == tokenizer.encode_batch([spaced])[0].tolist()
    assert len(row.positions) == 7


def test_words_of_a_sentencepiece_model_without_first_space(tmp_path):
    """A .model that adds no space before a text gets one before each word."""
    for prefix in (True, False):
        path = tmp_path / f"{prefix}.model"
        with path.open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences()[:300]),
                model_writer=file,
                vocab_size=200,
                minloglevel=2,
                add_dummy_prefix=prefix,
                user_defined_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]"],
                unk_piece="[UNK]",
            )
        tokenizer = load_tokenizer(path)
        native = sentencepiece.SentencePieceProcessor(model_file=str(path))
        for ids, word in zip(tokenizer.encode_words(["bakı", "dağlar"]), ["bakı", "dağlar"], strict=True):
            assert native.id_to_piece(ids[:1].tolist())[0].startswith("▁")
            assert native.decode(ids.tolist()).strip() == word


MASKED = ["Bakı {} şəhəridir.", "{} gəldi, çay dondu!", "Qış {}", "{}", "a{}b", "Kitab  {}  {}, söz\n{}", "[SEP] {} söz [CLS]"]


@pytest.mark.parametrize("strip", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", NAMES)
def test_masks_equal_transformers(name, strip, folders, tmp_path):
    """Spaces beside a mask follow the tokenizer's file: RoBERTa's strips the one before it, ours those on both sides."""
    folder = folders[name]
    if name in FAMILIES and (folder / "tokenizer.json").exists():
        saved = read_json(folder / "tokenizer.json")
        for token in saved["added_tokens"]:
            if token["content"] in ("[MASK]", "<mask>"):
                token["lstrip"], token["rstrip"] = strip
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
        folder = tmp_path
    elif strip != (False, False):
        pytest.skip("its file says itself what a mask takes")
    tokenizer, other = load_tokenizer(folder), loaded(folder, name)
    for text in MASKED:
        theirs = text.replace("{}", other.mask_token)
        # Other special tokens are plain text to us; transformers parses them, so its copy leaves them out.
        if "[SEP]" not in text:
            assert tokenizer.encode_with_masks(theirs).tolist() == other(theirs, add_special_tokens=False)["input_ids"], text
        ids = tokenizer.encode_with_masks(text.replace("{}", "[MASK]"))
        assert ids.tolist() == tokenizer.encode_with_masks(theirs).tolist()
        assert (ids == tokenizer.mask_id).sum() == text.count("{}")
        assert not np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id]).any()


@pytest.mark.parametrize("name", NAMES)
def test_offsets_exclude_blanks(name, folders):
    """Two offsets enclose the token's text without surrounding blanks; every other character is covered."""
    tokenizer = load_tokenizer(folders[name])
    ours = tokenizer.ours

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(WORDS, max_size=8), st.sampled_from([" ", "  ", "\n", "\t ", "\u00a0", " \n "]), st.booleans())
    def run(words, gap, around):
        text = gap.join(words)
        text = f"{gap}{text}{gap}" if around else text
        (encoding,) = tokenizer.encode_with_offsets([text])
        assert encoding.ids.tolist() == tokenizer.encode_batch([text])[0].tolist()
        covered = np.zeros(len(text), bool)
        for begin, end in encoding.offsets.tolist():
            assert 0 <= begin <= end <= len(text)
            part = text[begin:end]
            assert part == part.strip() or (ours and not part.strip())  # line ends are tokens of their own in ours
            covered[begin:end] = True
        if name in ("roberta", "modernbert", "mmbert"):
            assert all(covered[place] or text[place].isspace() for place in range(len(text)))

    run()


@pytest.mark.parametrize("name", ["roberta", "modernbert", "mmbert", "xlm-roberta"])
def test_offsets_of_words_are_the_words(name, folders):
    tokenizer = load_tokenizer(folders[name])
    text = "  Bakı şəhəri,\n qış gəldi "
    (encoding,) = tokenizer.encode_with_offsets([text])
    begins = {
        text[begin:].split(maxsplit=1)[0]
        for begin, end in encoding.offsets.tolist()
        if begin < end and text[begin - 1].isspace()
    }
    assert begins == {"Bakı", "şəhəri,", "qış", "gəldi"}
    (blank,) = tokenizer.encode_with_offsets([" \n "])
    assert (blank.offsets[:, 0] == blank.offsets[:, 1]).all()


_LLAMA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LTG = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
BEHIND_A_RULE = {
    "Llama 3": (None, [pre_tokenizers.Split(Regex(_LLAMA), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]),
    "LTG-BERT": (
        normalizers.Prepend(" "),
        [
            pre_tokenizers.Split(Regex(_LTG), "isolated"),
            pre_tokenizers.ByteLevel(False, use_regex=False),
            pre_tokenizers.Split(Regex(".{1,24}"), "isolated"),
        ],
    ),
    "Falcon": (None, [pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False), pre_tokenizers.Digits()]),
    "digits": (None, [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
    "Metaspace, digits": (None, [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.Digits(True)]),
    "words, Metaspace": (None, [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="never")]),
}


@pytest.mark.parametrize("name", BEHIND_A_RULE)
def test_words_are_those_of_a_sentence_whatever_parts_them(name, tmp_path):
    """A mark of the word's beginning stands once before each word, and not before its digits and signs."""
    normaliser, rules = BEHIND_A_RULE[name]
    engine = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Sequence(rules)
    if normaliser is not None:
        engine.normalizer = normaliser
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator([*sentences()[:300], "(ilin) «şəhər» 4.5, 2024-cü"], trainer)
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    words = ["Bakı,", "Azərbaycanın", "2024-cü", "(ilin)", "«şəhər»", "4.5", ".", "ən", "18:30-da"]
    text = " ".join(words)
    spaced = text if name in ("LTG-BERT", "words, Metaspace") else f" {text}"
    assert np.concatenate(tokenizer.encode_words(words)).tolist() == tokenizer.encode_batch([spaced])[0].tolist()
