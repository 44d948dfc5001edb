"""Import checkpoints from and export them to Hugging Face formats.

    python -m model.huggingface import hub://google-bert/bert-base-multilingual-cased OUT
    python -m model.huggingface export runs/mine/pretrain OUT [--push owner/name]

BERT (mBERT too), RoBERTa, XLM-RoBERTa and ModernBERT (mmBERT too) are converted in both directions, including heads and
tokenizer; with --foreign anything else that transformers loads becomes a baseline encoder.
"""

import argparse
import sys

from common.errors import UserError, command
from model.convert.export import export_checkpoint
from model.convert.importing import import_checkpoint
from model.convert.push import check_push, push


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.huggingface", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    bring = commands.add_parser("import", help="convert a Hugging Face checkpoint to one of this project")
    bring.add_argument("source", help="a Hugging Face folder, or hub://owner/name[@revision]")
    bring.add_argument("out", help="folder to write")
    bring.add_argument("--name", help="name in results (default: the folder's or the repository's)")
    bring.add_argument("--foreign", action="store_true", help="run it by transformers' own code, as a baseline encoder")
    give = commands.add_parser("export", help="write a folder that transformers loads")
    give.add_argument("checkpoint", help="checkpoint or run folder")
    give.add_argument("out", help="folder to write")
    give.add_argument("--card-data", help="YAML or JSON file: license, language, tags, datasets, data, limits, title")
    give.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the weights")
    give.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this repository of the hub (HF_TOKEN)")
    give.add_argument("--private", action="store_true", help="make the repository of --push private, if it is new")
    options = parser.parse_args(arguments)
    if options.command == "import":
        for note in import_checkpoint(options.source, options.out, options.name, options.foreign):
            print(note)
    else:
        if options.private and not options.push:
            raise UserError("--private: sets how --push creates the repository. Add --push owner/name.")
        if options.push:
            check_push(options.push)
        for note in export_checkpoint(options.checkpoint, options.out, options.card_data, options.dtype):
            print(note)
    print(options.out)
    if options.command == "export" and options.push:
        print(push(options.out, options.push, options.private))


if __name__ == "__main__":
    sys.exit(main())
