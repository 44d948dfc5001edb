"""Prepare the input of training from raw text: corpus, tokenizer and token shards, from one config.

    python prepare.py experiment=demo                              the text that ships here
    python prepare.py experiment=local corpus.path=FOLDER name=my  every file in FOLDER is one source

Each stage is skipped if its folder already holds the result of the same config and input. The corpus is built in units that
survive a kill, in corpus.engine.workers processes or on a Dask cluster (see corpus.build).
"""

from pathlib import Path

from omegaconf import DictConfig

from common.launch import git_state, launch
from common.locks import hold
from training.settings import Preparation, Pretraining, settings_of


def prepare(settings: Preparation | Pretraining) -> None:
    """Run the stages that are not done yet. `settings`: those of Preparation; other keys are not looked at."""
    # Here and not above: the corpus' worker processes load this file too and need none of it.
    from common.html import origin_of
    from corpus.build import build_corpus
    from data.shards import write_shards
    from tokenization.train import train_tokenizer

    corpus, across = Path(settings.corpus_dir), settings.across_languages
    if (settings.start_from or settings.distill.teachers) and not across:
        from training.starting import check_languages

        check_languages(settings)
    state = git_state()
    build_corpus(settings.corpus, corpus, origin_of(state["commit"], state["changed"]))
    with hold(settings.tokenizer_dir):
        if settings.tokenizer.kind == "imported":
            from training.starting import keep_tokenizer

            whose = settings.start_from or next(iter(settings.distill.teachers), None)
            tokenizer = keep_tokenizer(whose, settings.tokenizer_dir)
        else:
            tokenizer = train_tokenizer(settings.tokenizer, corpus, settings.tokenizer_dir, settings.seed_data)
    with hold(settings.shards_dir):
        write_shards(corpus, tokenizer, settings.shards_dir, across)


def main(config: DictConfig) -> None:
    """Entry for Hydra."""
    prepare(settings_of(config, Pretraining))


if __name__ == "__main__":
    launch(main, "prepare", Preparation)
