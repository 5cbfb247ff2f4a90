"""Small made reviews, digits and chorales, in every form that real ones come in."""

import gzip
import hashlib
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NEGATIVE = ["dull", "awful", "tired", "hollow", "worst"]
POSITIVE = ["moving", "superb", "warm", "clever", "best"]
COMMON = ["the", "film", "was", "a", "story", "don't", "br", "10"]


def reviews(count, seed):
    """``count`` texts, no two alike, and labels, negative and positive in turn."""
    draw = random.Random(seed)
    texts = []
    for row in range(count):
        words = draw.choices(COMMON + (POSITIVE if row % 2 else NEGATIVE), k=draw.randint(3, 12))
        texts.append(" ".join([*words, f"number{seed}x{row}"]))
    return texts, [row % 2 for row in range(count)]


def parquet(file, texts, labels):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": labels}), file)


def parquet_folder(folder, train=40, test=20):
    parquet(folder / "train.parquet", *reviews(train, 0))
    parquet(folder / "test.parquet", *reviews(test, 1))
    return folder


def tree(folder, train=40, test=20):
    """The aclImdb tree; rows of one label keep their order, all negative ones come first."""
    for split, (texts, labels) in {"train": reviews(train, 0), "test": reviews(test, 1)}.items():
        for label, name in enumerate(("neg", "pos")):
            (folder / split / name).mkdir(parents=True)
            for number, text in enumerate(t for t, its in zip(texts, labels, strict=True) if its == label):
                (folder / split / name / f"{number}_{7 * label + 2}.txt").write_text(text, encoding="utf-8")
    return folder


def keras(folder, train=40, test=20):
    """imdb.npz with its word index; returns the npz file."""
    splits = {"train": reviews(train, 0), "test": reviews(test, 1)}
    index: dict[str, int] = {}
    arrays = {}
    for split, (texts, labels) in splits.items():
        ranks = [[index.setdefault(word, len(index) + 1) for word in text.split()] for text in texts]
        arrays[f"x_{split}"] = np.array([*ranks, None], dtype=object)[:-1]
        arrays[f"y_{split}"] = np.array(labels)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "imdb.npz", **arrays)
    (folder / "imdb_word_index.json").write_text(json.dumps(index))
    return folder / "imdb.npz"


def mnist(folder, monkeypatch, train=40, test=20):
    """Four files in MNIST's form, of random digits, in `folder`; their checksums are taken for MNIST's."""
    from seqnets.data import mnist as module

    generator = np.random.default_rng(0)
    contents = {}
    for stem, count in (("train", train), ("t10k", test)):
        arrays = {"images-idx3": generator.integers(0, 256, (count, 28, 28)), "labels-idx1": np.arange(count) % 10}
        for kind, array in arrays.items():
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            contents[f"{stem}-{kind}-ubyte"] = head + array.astype(np.uint8).tobytes()
    published(folder, monkeypatch, module.FILES, contents)
    for name, content in contents.items():  # packed, as they are published
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def published(folder, monkeypatch, files, contents):
    """Files with these contents in `folder`, by name; their checksums take the place of those in `files`,
    the real ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw)
        monkeypatch.setitem(files, name, files[name]._replace(sha256=hashlib.sha256(raw).hexdigest()))
    return folder


def play(folder, monkeypatch, characters=2000):
    """A text by character, in the form of tinyshakespeare."""
    from seqnets.data import TinyShakespeare

    text = "".join(random.Random(0).choices("abc de\n", k=characters))
    return published(folder, monkeypatch, TinyShakespeare.FILES, {"input.txt": text})


def sentences(folder, monkeypatch, lines=60):
    """A text by word, in the form of the Penn Treebank."""
    from seqnets.data import PennTreebank

    draw = random.Random(0)
    contents = {
        name: "".join(
            f" {' '.join(draw.choices(['the', 'company', 'said', '<unk>', 'N'], k=9))} \n" for _ in range(count)
        )
        for name, count in zip(PennTreebank.FILES, (lines, lines // 2, lines // 3), strict=True)
    }
    return published(folder, monkeypatch, PennTreebank.FILES, contents)


def chorale(steps, draw):
    """Four voices that move by a note or stay."""
    voices = [48, 55, 64, 72]
    piece = []
    for _ in range(steps):
        voices = [voice + draw.choice((-1, 0, 0, 1)) for voice in voices]
        piece.append(sorted(set(voices)))
    return piece


def chorales(folder, monkeypatch, train=20, valid=6, test=5):
    """The JSON file of the chorales in `folder`, of made ones of 3 to 12 steps;
    its checksum is taken for the real one's.
    """
    from seqnets.data import chorales as module

    draw = random.Random(0)
    sizes = {"train": train, "valid": valid, "test": test}
    content = json.dumps({s: [chorale(draw.randint(3, 12), draw) for _ in range(n)] for s, n in sizes.items()})
    return published(folder, monkeypatch, module.FILES, dict.fromkeys(module.FILES, content))


def multi30k(folder, monkeypatch, train=40, validation=8, test=10):
    """Multi30k's files of made captions in its three languages, in `folder`;
    their checksums are taken for Multi30k's.
    """
    from seqnets.data import multi30k as module

    words = {
        "en": [["A", "The"], ["dog", "man", "girl"], ["runs", "sleeps"], ["in the water.", "on the beach."]],
        "de": [["Ein", "Der"], ["Hund", "Mann", "Mädchen"], ["läuft", "schläft"], ["im Wasser.", "am Strand."]],
        "fr": [["Un", "Le"], ["chien", "homme", "fille"], ["court", "dort"], ["dans l'eau.", "sur la plage."]],
    }
    draw = random.Random(0)
    contents = {}
    for split, count in (("train", train), ("val", validation), ("test_2016_flickr", test)):
        # short and long ones: one caption, or two joined
        picks = [
            [[draw.randrange(len(w)) for w in words["en"]] for _ in range(draw.randint(1, 2))] for _ in range(count)
        ]
        for language, slots in words.items():
            captions = [" ".join(slots[k][j] for one in pick for k, j in enumerate(one)) for pick in picks]
            contents[f"{split}.{language}"] = "".join(f"{caption}\n" for caption in captions)
    return published(folder, monkeypatch, module.FILES, contents)


def wikitext(folder):
    folder.mkdir(parents=True)
    for name in ("train", "valid", "test"):
        (folder / f"wiki.{name}.tokens").write_text("".join(f" = {k} = \n some words <unk> \n" for k in range(60)))
    return folder


def data(name, folder, monkeypatch):
    """Overrides that let an experiment run on made data: those of the data module `name`, in `folder`."""
    makers = {
        "IMDB": lambda: [f"data.path={parquet_folder(folder)}"],
        "MNIST": lambda: [f"data.path={mnist(folder, monkeypatch)}"],
        "Chorales": lambda: [f"data.path={chorales(folder, monkeypatch)}"],
        "Multi30k": lambda: [f"data.path={multi30k(folder, monkeypatch)}"],
        "TinyShakespeare": lambda: [
            f"data.path={play(folder, monkeypatch)}",
            "data.vocab_size=7",
            "callbacks.samples.prompt=ab",
        ],
        "PennTreebank": lambda: [f"data.path={sentences(folder, monkeypatch)}", "data.vocab_size=6"],
        "WikiText2": lambda: [f"data.path={wikitext(folder)}", "data.vocab_size=65"],
        "AddingProblem": lambda: ["data.length=9", "data.train_size=50", "data.test_size=5", "data.validation_size=5"],
        "CopyMemory": lambda: ["data.length=9", "data.train_size=50", "data.test_size=5", "data.validation_size=5"],
        "Series": list,
    }
    return makers[name]()
