"""Measure the corpus pipeline, near duplicates beside datatrove, spelling variants, and a million documents.

    python -m benchmarks.corpus [--path FOLDER] [--peer-python PYTHON_WITH_DATATROVE] [--copies N N] [--documents N] [--scale N]

FOLDER holds raw text as for `prepare.py corpus=local` (default: the demo's). PYTHON is an interpreter of another
environment that has `datatrove` and `spacy`. Speeds that could suffer from a busy machine are given in processor time, and
say so.
"""

import argparse
import contextlib
import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.files import read_jsonl, write_jsonl
from common.settings import typed
from corpus.build import build_corpus
from corpus.matching.duplicates import Store, exact_groups, near_clusters
from corpus.matching.signatures import SHINGLE, Signatures, band_keys, key_digest, mix
from corpus.reading.sources import ROOT, Reject, find_sources, read_records
from corpus.settings import Corpus
from corpus.stages.annotate import ROW
from corpus.stages.parts import StagedFile, save_array
from corpus.stages.resolve import find_duplicates
from language.azerbaijani import CYRILLIC, LOOKALIKES, fold_key, upper

AGREEMENT = 0.7
BINS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
PEER = """
import json, sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger
logger.remove()
found = {}
for job in json.loads(sys.argv[1]):
    config, base = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8), job["work"]
    steps = [
        [JsonlReader(job["folder"]), MinhashDedupSignature(base + "/sigs", config=config, language="azj_Latn")],
        [MinhashDedupBuckets(base + "/sigs", base + "/partitions", config=config)],
        [MinhashDedupCluster(base + "/partitions", base + "/removed", config=config)],
        [JsonlReader(job["folder"]), MinhashDedupFilter(base + "/removed"), JsonlWriter(base + "/kept", compression=None)],
    ]
    start, cpu = time.perf_counter(), time.process_time()
    for number, step in enumerate(steps):
        tasks = config.num_buckets if number == 1 else 1
        LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=f"{base}/logs{number}").run()
    found[job["name"]] = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "kept": base + "/kept"}
print("RESULT" + json.dumps(found))
"""


def cpu_seconds() -> float:
    """Processor time of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def megabytes(kind: str) -> float:
    """Memory of this process in MB: VmHWM is its peak, RssAnon its own current memory, RssFile its mapped files."""
    return int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0]) / 1e3


@contextlib.contextmanager
def watch_memory() -> Iterator[dict[str, float]]:
    """Peak memory in MB within the block: `own`, `mapped` (pages of files and libraries) and `MB` for both."""
    most, done = {"own": megabytes("RssAnon"), "mapped": megabytes("RssFile")}, threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most["own"], most["mapped"] = max(most["own"], megabytes("RssAnon")), max(most["mapped"], megabytes("RssFile"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
        most["MB"] = megabytes("VmHWM")


def measure_pipeline(path: str, copies: list[int], work: Path) -> None:
    """Build the text of `path` split into 8 files: MB/s per core with 1 and 2 workers, memory at `copies` times the text."""
    sources, _ = find_sources(path)
    records = [record for source in sources for record in read_records(source) if not isinstance(record, Reject)]
    sizes = {}
    for times in copies:
        folder = work / f"raw{times}"
        folder.mkdir()
        for copy in range(times):
            for number in range(8):
                part = ({"text": record.text + ("" if copy == 0 else f" {copy}")} for record in records[number::8])
                write_jsonl(folder / f"part{copy}{number}.jsonl", part)
        sizes[times] = sum(file.stat().st_size for file in folder.iterdir())
    results = {}
    for times, workers in itertools.product(copies, (1, 2)):
        entry = {"name": "all", "path": str(work / f"raw{times}")}
        settings = {
            "language": "azerbaijani",
            "sources": [entry],
            "engine": {"workers": workers},
            "quality": {"preset": "tuned"},
        }
        words = [
            sys.executable,
            "-m",
            "benchmarks.corpus",
            "--build",
            json.dumps([settings, str(work / f"out{times}{workers}")]),
        ]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        results[times, workers] = result = json.loads(run.stdout.splitlines()[-1])
        rate = sizes[times] / 1e6 / result["cpu"]
        print(
            f"pipeline, {sizes[times] / 1e6:.1f} MB, {workers} workers: {result['wall']:.1f} s, {result['cpu']:.1f} s of CPU "
            f"({rate:.2f} MB/s a core); main process at most {result['MB']:.0f} MB, {result['own']:.0f} MB of its own, "
            f"{result['mapped']:.0f} MB of files, {result['before']:.0f} MB of its own before"
        )
    first, last = copies[0], copies[-1]
    for workers in (1, 2) if len(copies) > 1 else ():
        less, more = results[first, workers], results[last, workers]
        each = (more["MB"] - less["MB"]) * 1e6 / (more["documents"] - less["documents"])
        print(
            f"pipeline, {workers} workers: {each:.0f} bytes of memory for each document more, from {less['documents']:,} to "
            f"{more['documents']:,} documents"
        )
    one, two = results[first, 1], results[first, 2]
    print(
        f"pipeline, 2 workers against 1: {one['wall'] / two['wall']:.2f} times as fast by the clock (load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores); {two['main']:.1f} of {two['cpu']:.1f} s outside workers allow "
        f"{one['cpu'] / (two['main'] + (two['cpu'] - two['main']) / 2):.2f} times on free cores"
    )


def build_once(words: str) -> None:
    """One build in its own process; the last line of output has the measurement."""
    settings, out = json.loads(words)
    start, before = time.perf_counter(), megabytes("RssAnon")
    with watch_memory() as memory:
        report = build_corpus(typed(Corpus, settings, "corpus"), out)
        main = time.process_time()
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - start,
                "cpu": cpu_seconds(),
                "main": main,
                "before": before,
                "documents": report["total"]["in"],
                **memory,
            }
        )
    )


def vocabulary(path: str) -> list[str]:
    """Up to 30,000 words of the text, most frequent first, filled up with words of random syllables."""
    counts: dict[str, int] = defaultdict(int)
    sources, _ = find_sources(path)
    for source in sources:
        for record in read_records(source):
            if not isinstance(record, Reject):
                for word in record.text.split():
                    if word.isalpha():
                        counts[word] += 1
    words = sorted(counts, key=lambda word: (-counts[word], word))[:30_000]
    chance = np.random.default_rng(5)
    while len(words) < 30_000:
        words.append("".join(chance.choice(["ba", "lı", "qə", "şün", "or", "əm", "dir", "çö"], size=4)) + str(len(words)))
    return words


def planted(words: list[str], count: int, seed: int) -> tuple[list[str], list[tuple[int, int]]]:
    """`count` documents of 241 words on average (Zipf); 28 % are copies with up to 25 % of their words replaced."""
    chance = np.random.default_rng(seed)
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    texts, pairs, table = [], [], np.array(words)
    for number in range(count):
        if number and chance.random() < 0.28:
            original = int(chance.integers(0, len(texts)))
            copy = texts[original].split(" ")
            for place in np.flatnonzero(
                chance.random(len(copy)) < chance.choice([0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25])
            ):
                copy[place] = words[int(chance.integers(0, len(words)))]
            pairs.append((original, number))
            texts.append(" ".join(copy))
        else:
            length = max(10, int(chance.exponential(241)))
            texts.append(" ".join(table[chance.choice(len(words), size=length, p=share)].tolist()))
    return texts, pairs


def ours(texts_file: Path) -> tuple[np.ndarray, float]:
    """Cluster the documents of a .jsonl file; returns the clusters and the processor time."""
    start = time.process_time()
    signer, signed, digests = Signatures(), [], []
    for _, record in read_jsonl(texts_file):
        key = fold_key(record["text"])
        digests.append(np.frombuffer(key_digest(key), "<u8"))
        signed.append(signer.add(key))
    signatures = np.zeros((len(signed), 112), np.uint32)
    signatures[signed] = signer.finish()
    exact = exact_groups(np.array(digests))
    rows = np.flatnonzero(np.array(signed) & (exact == np.arange(len(exact))))
    cluster = np.arange(len(exact))
    cluster[rows] = rows[near_clusters(Store(signatures), rows, AGREEMENT)]
    return cluster[exact], time.process_time() - start


def peer(python: str, jobs: list[dict[str, str]]) -> dict[str, Any]:
    """datatrove's MinHash over each job's folder: seconds, processor time, and the ids it keeps."""
    run = subprocess.run([python, "-c", PEER, json.dumps(jobs)], capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"datatrove failed:\n{run.stderr[-3000:]}")
    found = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("RESULT"))[6:])
    for result in found.values():
        files = [file for file in Path(result["kept"]).rglob("*") if file.is_file()]
        opened = ((gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") for file in files)
        result["kept"] = {json.loads(line)["id"] for file in opened for line in file}
    return found


def write_documents(folder: Path, texts: list[str]) -> Path:
    """Write one .jsonl file with the texts; ids are their numbers."""
    folder.mkdir(parents=True)
    write_jsonl(folder / "all.jsonl", ({"id": str(number), "text": text} for number, text in enumerate(texts)))
    return folder / "all.jsonl"


def measure_near(words: list[str], count: int, python: str | None, work: Path) -> None:
    """Near duplicates: documents a second and recall by true Jaccard, ours and datatrove's on the same file."""
    texts, pairs = planted(words, count, seed=11)
    file = write_documents(work / "near", texts)
    cluster, cpu = ours(file)
    print(
        f"near duplicates, {count:,} documents of {sum(len(t.split()) for t in texts) / count:.0f} words: "
        f"{count / cpu:,.0f} documents/s of processor"
    )
    kept: set[str] = set()
    if python:
        peer_count = min(count, 4000)  # it is slow; only pairs among the first documents are needed
        result = peer(
            python,
            [
                {
                    "name": "near",
                    "folder": str(write_documents(work / "near-peer", texts[:peer_count]).parent),
                    "work": str(work / "peer-near"),
                }
            ],
        )["near"]
        kept = result["kept"]
        print(
            f"  datatrove, {peer_count:,} documents: {peer_count / result['cpu']:,.0f} documents/s of processor; "
            f"ours is {count / cpu / (peer_count / result['cpu']):.0f} times as fast"
        )
    hits, theirs = defaultdict(list), defaultdict(list)
    shingles = [None] * count
    for left, right in pairs:
        for number in (left, right):
            if shingles[number] is None:
                split = fold_key(texts[number]).split(" ")
                shingles[number] = {tuple(split[at : at + SHINGLE]) for at in range(len(split) - SHINGLE + 1)}
        jaccard = len(shingles[left] & shingles[right]) / max(1, len(shingles[left] | shingles[right]))
        place = int(np.searchsorted(BINS, jaccard, side="right")) - 1
        hits[place].append(cluster[left] == cluster[right])
        if kept and right < peer_count:
            theirs[place].append(str(left) not in kept or str(right) not in kept)
    for place, found in sorted(hits.items()):
        more = (
            f"; datatrove removed one of the two {np.mean(theirs[place]):.3f} of {len(theirs[place])}" if theirs[place] else ""
        )
        print(f"  Jaccard {BINS[place]:.1f} to {min(1, BINS[place + 1]):.1f}: {np.mean(found):.4f} of {len(found)}{more}")
    family = np.arange(count)
    for left, right in pairs:
        family[right] = family[left]
    print(f"  documents joined with an unrelated one: {int((family[cluster] != family).sum())}")


def spellings(text: str) -> dict[str, str]:
    """One text in the different spellings that people and machines produce."""
    cyrillic = {latin: letter for letter, latin in CYRILLIC.items() if len(latin) == 1 and letter not in "йэц"}
    look = {latin: letter for letter, latin in LOOKALIKES.items() if latin in "aeopcx"}
    flat = text.translate(str.maketrans("əğıöşüçƏĞIİÖŞÜÇ", "egiosucEGIIOSUC"))
    return {
        "upper case": upper(text),
        "ASCII": flat,
        "e for ə": text.replace("ə", "e").replace("Ə", "E"),
        "Cyrillic": "".join(cyrillic.get(letter, letter) for letter in text.replace("I", "ı").replace("İ", "i").lower()),
        "ä of 1991": text.replace("ə", "ä").replace("Ə", "Ä"),
        "homoglyphs": "".join(look.get(letter, letter) for letter in text),
    }


def measure_spellings(path: str, python: str | None, work: Path) -> None:
    """Copies of the first 200 documents in other spellings: how many our key finds, and how many datatrove's."""
    sources, _ = find_sources(path)
    records = (record for source in sources for record in read_records(source) if not isinstance(record, Reject))
    texts = [record.text for record in records if len(record.text.split()) >= 20 and not record.text.isascii()][:200]
    jobs = []
    for name in spellings(""):
        twins = [spellings(text)[name] for text in texts]
        keep = [number for number, twin in enumerate(twins) if twin != texts[number]]
        both = [texts[number] for number in keep] + [twins[number] for number in keep]
        file = write_documents(work / f"twins-{name.replace(' ', '-')}", both)
        cluster, _ = ours(file)
        half = len(keep)
        found = np.mean(cluster[:half] == cluster[half:])
        jobs.append(
            {"name": name, "folder": str(file.parent), "work": str(work / f"peer-{len(jobs)}"), "found": found, "half": half}
        )
    results = peer(python, [{key: job[key] for key in ("name", "folder", "work")} for job in jobs]) if python else {}
    for job in jobs:
        more = ""
        if job["name"] in results:
            kept = results[job["name"]]["kept"]
            alone = sum(str(number) in kept and str(number + job["half"]) in kept for number in range(job["half"]))
            more = f", datatrove {1 - alone / job['half']:.3f}"
        print(f"twins in {job['name']}: ours {job['found']:.3f} of {job['half']}{more}")


def measure_scale(words: list[str], count: int, work: Path) -> None:
    """Sign `count` documents in parts on disk, as a build does, then run the duplicates stage in its own process."""
    chance, table = np.random.default_rng(3), np.array(words)
    share = 1 / np.arange(1, len(words) + 1)
    steps = np.cumsum(share / share.sum())
    folder, start = work / "scale", time.process_time()
    (folder / "decided").mkdir(parents=True)
    spent = 0.0
    for number, begin in enumerate(range(0, count, 1 << 15)):
        size = min(1 << 15, count - begin)
        picked = table[np.minimum(np.searchsorted(steps, chance.random((size, 60))), len(words) - 1)]
        copies = np.flatnonzero(chance.random(size) < 0.25)
        picked[copies] = picked[np.maximum(copies - 1, 0)]
        picked[copies, chance.integers(0, 60, len(copies))] = "başqa"
        keys = [fold_key(" ".join(row)) for row in picked.tolist()]
        begun = time.process_time()
        signer = Signatures()
        for key in keys:
            signer.add(key)
        signatures = signer.finish()
        save_array(folder / f"{number:05d}.signatures.npy", signatures)
        save_array(folder / f"{number:05d}.bands.npy", band_keys(signatures))
        rows = np.zeros(size, ROW)
        digests = np.frombuffer(b"".join(map(key_digest, keys)), "<u8").reshape(-1, 2)
        rows["digest0"], rows["digest1"], rows["id"] = *digests.T, mix(np.arange(begin, begin + size, dtype=np.uint64))
        rows["characters"], rows["signed"] = [len(key) for key in keys], True
        np.savez(folder / f"{number:05d}.npz", rows=rows)
        save_array(folder / "decided" / f"{number:05d}.npy", np.zeros(size, np.uint8))
        spent += time.process_time() - begun
    print(
        f"scale: {count:,} documents of 60 words signed at {count / spent:,.0f} documents/s of processor "
        f"({time.process_time() - start:.0f} s including their generation)"
    )
    words_ = [sys.executable, "-m", "benchmarks.corpus", "--cluster", str(folder)]
    run = subprocess.run(words_, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(run.stdout.splitlines()[-1])
    each = (result["own"] - result["before"]) * 1e6 / count
    whole = result["before"] / 1e3 + each * 30e6 / 1e9
    print(
        f"scale: duplicates of {count:,} in {result['cpu']:.1f} s of processor ({count / result['cpu']:,.0f} documents/s), "
        f"{result['clusters']:,} clusters; memory of its own {result['before']:.0f} MB before, {result['own']:.0f} MB "
        f"at most, {result['MB']:.0f} MB with files. 30 million at {each:.0f} bytes a document: {whole:.1f} GB "
        f"({30e6 * (576 + ROW.itemsize) / 1e9:.1f} GB on disk)"
    )


def cluster_once(folder: Path) -> None:
    """Run the duplicates stage over the parts in `folder`; the last line of output has the measurement."""
    parts = [len(np.load(file, mmap_mode="r")) for file in sorted((folder / "decided").iterdir())]
    file = StagedFile(0, "all", str(folder), parts, 0, decided=str(folder / "decided"))
    settings = {"near_duplicates": AGREEMENT, "min_characters": 10}
    task = {"files": [file], "settings": settings, "folder": str(folder / "out"), "digest": ""}
    before, cpu = megabytes("RssAnon"), time.process_time()
    with watch_memory() as memory:
        find_duplicates(task)
    cpu = time.process_time() - cpu
    found = int((np.load(folder / "out" / "decision.npy")["reason"] == 0).sum())
    print(json.dumps({"cpu": cpu, "before": before, "clusters": found, **memory}))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default="data/demo/corpus", help="folder of raw text")
    parser.add_argument("--peer-python", help="a Python with datatrove and spacy")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 3], help="times the text for the pipeline")
    parser.add_argument("--documents", type=int, default=20_000, help="synthetic documents for recall and speed")
    parser.add_argument("--scale", type=int, default=1_000_000, help="synthetic documents for memory")
    parser.add_argument("--only", choices=["pipeline", "near", "spellings", "scale"], help="one of the four parts")
    parser.add_argument("--build", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        return build_once(options.build)
    if options.cluster:
        return cluster_once(options.cluster)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        words = vocabulary(options.path) if options.only in (None, "near", "scale") else []
        if options.only in (None, "pipeline"):
            measure_pipeline(options.path, options.copies, work)
        if options.only in (None, "near"):
            measure_near(words, options.documents, options.peer_python, work)
        if options.only in (None, "spellings"):
            measure_spellings(options.path, options.peer_python, work)
        if options.only in (None, "scale"):
            measure_scale(words, options.scale, work)
    return None


if __name__ == "__main__":
    main()
