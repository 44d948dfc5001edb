"""A git-lfs pointer is recognised and named, whichever file of a checkpoint it replaces."""

import pytest

from common.errors import UserError
from common.files import POINTER, write_json
from model.convert.importing import read_weights
from tokenization.loading import load_tokenizer

NOTE = POINTER + b"v1\noid sha256:6a6a\nsize 1234567\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights(tmp_path, name):
    (tmp_path / name).write_bytes(NOTE)
    with pytest.raises(UserError, match=rf"{name}: a git-lfs pointer.*git lfs pull"):
        read_weights(tmp_path)
    (tmp_path / name).unlink()
    write_json(tmp_path / f"{name}.index.json", {"weight_map": {"a": f"part-{name}"}})
    (tmp_path / f"part-{name}").write_bytes(NOTE)
    with pytest.raises(UserError, match=rf"part-{name}: a git-lfs pointer"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model", "tokenizer_config.json"])
def test_tokenizers(tmp_path, name):
    (tmp_path / name).write_bytes(NOTE)
    with pytest.raises(UserError, match=rf"{name}: a git-lfs pointer.*git lfs pull"):
        load_tokenizer(tmp_path)
