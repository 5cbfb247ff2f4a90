"""Data sets of a few files with known contents: from a folder, or downloaded once."""

import gzip
import hashlib
import threading
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler

import pytest

from seqnets.data.files import File, find_files, fingerprint
from seqnets.errors import DataError

CONTENTS = {"a.txt": b"first", "b.txt": b"second"}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}


@pytest.fixture
def host(tmp_path):
    """A server of both files, one of them packed; and the paths that it was asked for."""
    root = tmp_path / "host"
    root.mkdir()
    (root / "a.txt").write_bytes(CONTENTS["a.txt"])
    (root / "b.txt.gz").write_bytes(gzip.compress(CONTENTS["b.txt"]))
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, form, *args):
            asked.append(self.path)

    server = HTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked, root
    server.shutdown()
    server.server_close()


def files(url):
    return {"a.txt": File(SUMS["a.txt"], f"{url}/a.txt"), "b.txt": File(SUMS["b.txt"], f"{url}/b.txt.gz")}


def test_files_lie_in_a_folder_packed_or_not(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "letters"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(CONTENTS["a.txt"])
    (folder / "b.txt.gz").write_bytes(gzip.compress(CONTENTS["b.txt"]))
    given, origin = find_files("letters", files("http://nowhere"), folder)
    assert given == CONTENTS
    assert origin == {"source": "local", "location": str(folder), "note": ""}
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path / "data"))
    found, _ = find_files("letters", files("http://nowhere"))
    assert fingerprint(found) == fingerprint(given)
    assert fingerprint(found) != fingerprint({**found, "a.txt": b"other"})


def test_files_are_downloaded_once(host):
    url, asked, _ = host
    for _ in range(2):
        contents, origin = find_files("letters", files(url))
        assert contents == CONTENTS
        assert origin["source"] == "download"
    assert asked == ["/a.txt", "/b.txt.gz"]


def test_a_download_that_is_not_what_is_published_is_refused(host):
    url, _, root = host
    (root / "a.txt").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"SHA256 hash of downloaded file.*does not match"):
        find_files("letters", files(url))
    (root / "a.txt").write_bytes(CONTENTS["a.txt"])
    (root / "b.txt.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match=r"b\.txt\.gz is not the file that is published.*put it there anew"):
        find_files("letters", files(url))


def damage(file):
    """Packs it, and breaks the stream within."""
    packed = bytearray(gzip.compress(file.read_bytes() * 100))
    packed[12:16] = b"\xff" * 4
    file.with_name(f"{file.name}.gz").write_bytes(packed)
    file.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "b.txt").unlink(), r"lacks b\.txt: download http://127\.0\.0\.1:9/b\.txt\.gz"),
        (lambda folder: (folder / "a.txt").write_bytes(b"fir"), r"a\.txt is not the file that is published"),
        (lambda folder: (folder / "a.txt").rename(folder / "a.txt.gz"), r"a\.txt\.gz cannot be read"),
        (lambda folder: damage(folder / "a.txt"), r"a\.txt\.gz cannot be read"),
    ],
)
def test_what_is_there_and_wrong_is_never_replaced_silently(change, message, tmp_path, monkeypatch):
    folder = tmp_path / "letters"
    folder.mkdir()
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    change(folder)
    monkeypatch.setenv("SEQNETS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=message):
        find_files("letters", files("http://127.0.0.1:9"))


def test_with_neither_folder_nor_network_the_error_says_what_to_put_where():
    with pytest.raises(DataError) as caught:
        find_files("letters", files("http://127.0.0.1:9"))  # nothing listens there
    for way in ("Set SEQNETS_DATA to the folder that holds letters/", "http://127.0.0.1:9/b.txt.gz", "data.path="):
        assert way in str(caught.value)
