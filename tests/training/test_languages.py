"""The language of text, tokenizer and checkpoint: recorded, read back, and two at once are an error that names both."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from benchmark import language_of_models
from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from common.launch import ROOT
from corpus.settings import Corpus
from data.shards import open_shards, write_shards
from language.azerbaijani import LANGUAGE as AZ
from language.turkish import LANGUAGE as TR
from model.convert.export import export_checkpoint
from model.convert.importing import import_checkpoint
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.store import load_task_model, read_config
from tests.test_finetune import checkpoint, files, run, settings_of  # noqa: F401  (fixtures)
from tests.tokenization.samples import write_corpus
from tokenization.settings import Tokenizer as TokenizerSettings
from tokenization.tokenizer import Tokenizer
from tokenization.train import train_tokenizer
from training.runs import Data, prepare_data, refuse_other_language
from training.sentences import language_of_documents
from training.settings import Distill, Finetuning, Pretraining, Sentences
from training.starting import check_languages
from training.task_models import Start, read_start


@pytest.fixture(scope="module")
def turkish(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("turkish")
    words = ["İstanbul", "Ankara", "ılık", "Irmak", "kitap", "kitabı", "bir", "iki", "üç", "dört", "beş"]
    corpus = write_corpus(folder / "corpus", [f"{a} {b}." for a in words for b in words])
    write_json(corpus / "report.json", {**read_json(corpus / "report.json"), "language": "turkish"})
    return train_tokenizer(TokenizerSettings(vocab_size=200, alphabet_size=60), corpus, folder / "tokenizer", 0)


def write_tiny(folder: Path, tokenizer: Tokenizer, **more: object) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64}
    model = MaskedLM(EncoderConfig(vocab_size=tokenizer.vocab_size, **shape))
    write_checkpoint(folder, model.state_dict(), model.encoder.config, tokenizer, {"name": folder.name, **more})
    return folder


def data_for(settings: Finetuning, start: Start) -> Data:
    """As finetune.py and benchmark.py prepare them."""
    refuse_other_language(settings, start)
    return prepare_data(settings.task, start, {})


def config_of(name: str, *words: str):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose(name, list(words))


def test_a_turkish_checkpoint_is_fine_tuned_and_exported_as_one(turkish, files, tmp_path):  # noqa: F811
    folder = write_tiny(tmp_path / "tr", turkish)
    assert read_json(folder / "config.json")["language"] == "turkish" and read_start(folder).language is TR
    summary = run(folder, files["qa"], "qa", tmp_path / "out", 0, "recipe.epochs=1", "task.metric=f1_language")
    made = Path(summary["folder"]) / "checkpoint"
    assert summary["language"] == read_config(made)[1]["language"] == load_task_model(made)[2]["language"] == "turkish"
    export_checkpoint(folder, tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert "language:\n- tr\n" in card and "- turkish\n" in card and "made for Turkish" in card and "Ankara" in card
    assert "Azerbaijani" not in card and "azerbaijani" not in card
    import_checkpoint(str(tmp_path / "export"), tmp_path / "back")
    assert read_start(tmp_path / "back").language is TR


def test_a_foreign_checkpoint_knows_none_and_takes_its_tasks(turkish, files, tmp_path):  # noqa: F811
    start = replace(read_start(write_tiny(tmp_path / "foreign", turkish)), language=None)
    settings = settings_of("task.kind=qa", f"task.train={files['qa']}")
    assert data_for(settings, start).task.language is None
    settings = settings_of("task.kind=qa", f"task.train={files['qa']}", "language=kk")
    assert data_for(settings, start).task.language.name == "kazakh"


def test_checkpoint_against_language(checkpoint, files):  # noqa: F811
    start, words = read_start(checkpoint), ["task.kind=qa", f"task.train={files['qa']}"]
    assert start.language is AZ
    with pytest.raises(UserError, match=r"checkpoint=.*tiny: azerbaijani, language: turkish\. Leave language out.*task\."):
        data_for(settings_of(*words, "language=turkish"), start)
    # Texts of another language are a transfer, and the notes say so.
    data = data_for(settings_of(*words, "task.language=tr"), start)
    assert data.task.language is TR and any(
        "in Turkish, the checkpoint was trained on Azerbaijani" in note for note in data.notes
    )
    assert data.digest != data_for(settings_of(*words), start).digest  # another score is another run
    assert data_for(settings_of(*words, "language=tr", "across_languages=true"), start).task.language is TR


def test_what_a_filter_keeps_against_the_checkpoint(checkpoint, tmp_path):  # noqa: F811
    texts = ["Bugün hava çok güzel ve güneşli.", "Yarın okula gitmeyeceğim, çünkü hastayım."]
    write_jsonl(tmp_path / "t.jsonl", [{"text": f"{texts[n % 2]} {n}", "label": str(n % 2)} for n in range(40)])
    words = [
        "task.kind=classification",
        f"task.train={tmp_path / 't.jsonl'}",
        "task.language=turkish",
        "task.language_only=true",
    ]
    with pytest.raises(UserError, match=r"tiny: azerbaijani, the rows that task\.language_only keeps: turkish"):
        data_for(settings_of(*words), read_start(checkpoint))
    assert data_for(settings_of(*words, "across_languages=true"), read_start(checkpoint)).task.train


def test_models_of_two_languages_on_a_task_of_none(checkpoint, turkish, files, tmp_path):  # noqa: F811
    ours, theirs = read_start(checkpoint), read_start(write_tiny(tmp_path / "tr", turkish))
    settings = settings_of("task.kind=qa", f"task.train={files['qa']}", "task.name=questions")
    assert language_of_models(settings.task, [ours, replace(theirs, language=None)]) == "azerbaijani"
    with pytest.raises(UserError, match=r"tiny: azerbaijani, tr: turkish\. Which one are the texts of questions in"):
        language_of_models(settings.task, [ours, theirs])


def test_corpus_tokenizer_and_shards(prepared, turkish, tmp_path):
    with pytest.raises(UserError, match=r"corpus: azerbaijani, its tokenizer: turkish\. Train a tokenizer on this corpus"):
        write_shards(prepared / "corpus", turkish, tmp_path / "shards")
    with pytest.raises(UserError, match=r"shards: azerbaijani, the tokenizer: turkish\. Run prepare.py"):
        open_shards(prepared / "shards", turkish)
    index = write_shards(prepared / "corpus", turkish, tmp_path / "shards", across_languages=True)
    assert index["language"] == "azerbaijani" == open_shards(prepared / "shards").index["language"]


def test_the_start_of_pre_training_against_the_corpus(turkish, tmp_path):
    folder = write_tiny(tmp_path / "tr", turkish)
    settings = Pretraining(corpus=Corpus(language="az"), start_from=str(folder))
    with pytest.raises(UserError, match=r"corpus.language: azerbaijani, start_from=.*tr: turkish\. .*across_languages=true"):
        check_languages(settings)
    check_languages(replace(settings, corpus=Corpus(language="turkish")))
    settings = Pretraining(corpus=Corpus(language="az"), distill=Distill(teacher=str(folder)))
    with pytest.raises(UserError, match=r"distill\.teacher=.*tr: turkish"):
        check_languages(settings)


def test_documents_of_sentence_vectors(turkish, tmp_path):
    folder = write_tiny(tmp_path / "tr", turkish)
    settings = Sentences(checkpoint=str(folder))
    assert language_of_documents(settings, turkish) is TR
    with pytest.raises(UserError, match="tr: turkish, language: azerbaijani"):
        language_of_documents(replace(settings, language="az"), turkish)
    assert language_of_documents(replace(settings, language="az", across_languages=True), turkish) is AZ


def test_a_benchmark_that_pre_trains_reads_the_language_of_its_corpus(tmp_path):
    from training.entries import pretraining_config

    config = config_of("benchmark", f"workdir={tmp_path}")
    entry = {"name": "small", "pretrain": {"model": "bert_tiny"}}
    assert config.language is None and pretraining_config(config, entry).corpus.language == "azerbaijani"
    (tmp_path / "corpus").mkdir()
    write_json(tmp_path / "corpus" / "report.json", {"language": "turkish"})
    assert pretraining_config(config, entry).corpus.language == "turkish"
    said = config_of("benchmark", f"workdir={tmp_path}", "language=kazakh")
    assert pretraining_config(said, entry).corpus.language == "kazakh"
