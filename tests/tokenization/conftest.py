"""The six tokenizers of the tests, trained once."""

from pathlib import Path

import pytest

from tests.tokenization.samples import KINDS, options, sentences, write_corpus
from tokenization.train import train_tokenizer


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("built"), sentences())


@pytest.fixture(scope="session")
def trained(built, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    for name in KINDS:
        train_tokenizer(options(name), built, folder / name, 1)
    return {name: folder / name for name in KINDS}


@pytest.fixture(params=KINDS)
def folder(request, trained) -> Path:
    return trained[request.param]
