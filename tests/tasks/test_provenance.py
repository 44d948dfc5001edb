import json

import numpy as np
import pytest

from common.errors import UserError
from corpus.build import list_sources, read_documents
from data.shards import open_shards, trace, write_shards
from tests.azerbaijani import build_corpus
from tests.conftest import run_script
from tests.corpus.test_build import sentences, write


class Letters:
    """A tokenizer with two ids a word and none for documents that begin with "boş"."""

    identity, vocab_size, language = "letters", 300, None

    def encode_batch(self, texts):
        return [np.array([] if t.startswith("boş") else [len(w) for w in t.split() for _ in "ab"], np.int64) for t in texts]


@pytest.fixture
def shards(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        texts = list(sentences(30, seed))
        texts[3] = "boş və " + texts[3]
        texts[17] = "boş və " + texts[17]
        write(tmp_path / "in" / f"{name}.jsonl", texts)
    build_corpus({"path": str(tmp_path / "in"), "licence": "CC0"}, tmp_path / "corpus")
    write_shards(tmp_path / "corpus", Letters(), tmp_path / "shards")
    return open_shards(tmp_path / "shards")


def test_every_token_is_traced_to_its_line(shards, tmp_path):
    corpus = tmp_path / "corpus"
    expected = []
    for name in list_sources(corpus):
        for document in read_documents(corpus, name):
            if not document["text"].startswith("boş"):
                expected += [(name, document["line"], place) for place in range(2 * len(document["text"].split()))]
    assert len(expected) == shards.index["tokens"]
    assert 3 <= shards.index["documents_without_tokens"] <= 4
    for token in [0, 1, len(expected) // 2, *range(0, len(expected), 97), len(expected) - 1]:
        found = trace(shards, token, corpus)
        assert (found["source"], found["line"], found["place_in_document"]) == expected[token]
        raw = (tmp_path / "in" / found["file"]).read_text().splitlines()[found["line"] - 1]
        assert json.loads(raw)["text"][:200] == found["text"]
        assert found["licence"] == "CC0" and found["cluster"] and found["script_in"] and found["rules"] == []


def test_a_wrong_token_or_corpus_is_a_message(shards, tmp_path):
    with pytest.raises(UserError, match="counted from 0"):
        trace(shards, shards.index["tokens"], tmp_path / "corpus")
    build_corpus({"path": str(tmp_path / "in"), "min_characters": 20}, tmp_path / "other")
    with pytest.raises(UserError, match="not the corpus"):
        trace(shards, 0, tmp_path / "other")


def test_the_command(shards, tmp_path):
    result = run_script("-m", "data.shards", tmp_path / "shards", 5)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["source"] == "a"
    refused = run_script("-m", "data.shards", tmp_path / "shards", 10**9)
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
