"""Raw text to what training reads: corpus, tokenizer, token shards, from one config.

    python prepare.py                                              the demo
    python prepare.py experiment=local corpus.path=FOLDER name=my  every file in FOLDER is one source

Each of the three stages is skipped when its folder already holds what the same config and input would give; the corpus
is built in pieces that survive a kill, on corpus.engine.workers processes or on a Dask cluster (see corpus.build).
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.launch import launch, resolved


def prepare(settings: dict[str, Any]) -> None:
    """Run the stages that are not done yet."""
    # Here and not above: the corpus' worker processes load this file too and need none of it.
    from corpus.build import build_corpus
    from data.shards import write_shards
    from tokenization.train import train_tokenizer

    corpus = Path(settings["corpus_dir"])
    build_corpus(settings["corpus"], corpus)
    if settings["tokenizer"]["kind"] == "imported":
        from training.starting import keep_tokenizer

        whose = settings["start_from"] or settings["distill"]["teacher"]
        tokenizer = keep_tokenizer(whose, settings["tokenizer_dir"])
    else:
        tokenizer = train_tokenizer(settings["tokenizer"], corpus, settings["tokenizer_dir"], settings["seed_data"])
    write_shards(corpus, tokenizer, settings["shards_dir"])


def main(config: DictConfig) -> None:
    """Entry for Hydra."""
    prepare(resolved(config))


if __name__ == "__main__":
    launch(main, "prepare")
