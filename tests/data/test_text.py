import pytest
import torch

from seqnets.data import TextEncoder

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


def keras_words(text):
    """What keras.preprocessing.text.text_to_word_sequence does."""
    text = text.lower().translate(str.maketrans(dict.fromkeys(FILTERS, " ")))
    return [word for word in text.split(" ") if word]


TEXTS = [
    "It's a GREAT film.<br /><br />Don't miss it: 10/10!",
    "tab\there, new\nline, back\\slash, [brackets] {braces} ^ ` ~ | _under_score_",
    "naïve Ünïcode ÉTÉ — “quotes” … no\xa0break 日本 Straße",
    "  spaces   in    front and behind   ",
]


@pytest.mark.parametrize("text", [*TEXTS, *(f"one{c}two" for c in FILTERS + " '\r\x0b;\u2013")])
def test_words_are_those_of_keras(text):
    words = keras_words(text)
    encoder = TextEncoder(sorted(set(words)), max_tokens=40)
    ids = encoder.encode([text])[0]
    assert [encoder.words[i - 3] for i in ids[ids > 2]] == words
    assert ids[ids > 0][0] == 1


def test_ids_go_by_frequency_then_by_first_appearance():
    encoder = TextEncoder.fit(["b a c a", "c d a b", "e"], vocab_size=7, max_tokens=6)
    assert encoder.words == ["a", "b", "c", "d"]
    assert encoder.encode(["a b c d e unseen"]).tolist() == [[3, 4, 5, 6, 2, 2]]


def test_start_then_last_tokens_then_padding_in_front():
    encoder = TextEncoder(["a", "b", "c"], max_tokens=4)
    ids = encoder.encode(["a", "a b", "a b c", "a b c c", "a b c c b"])
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[0, 0, 1, 3], [0, 1, 3, 4], [1, 3, 4, 5], [3, 4, 5, 5], [4, 5, 5, 4]]


def test_many_texts_keep_their_order():
    encoder = TextEncoder([f"w{i}" for i in range(2500)], max_tokens=2)
    assert encoder.encode([f"w{i}" for i in range(2500)])[:, 1].tolist() == list(range(3, 2503))
    assert encoder.encode([]).shape == (0, 2)


@pytest.mark.parametrize("empty", ["", "  \n\t", "\xa0\r", "?!... -- *"])
def test_a_text_without_words_is_named(empty):
    with pytest.raises(ValueError, match=r"text 1 .* holds no word"):
        TextEncoder(["a"], 3).encode(["a", empty])


def test_a_bare_string_is_no_list_of_texts():
    with pytest.raises(TypeError, match=r"encode\(\[text\]\)"):
        TextEncoder(["a"], 3).encode("a")


def test_a_word_given_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        TextEncoder(["a", "b", "a"], 3)


def test_it_travels_in_a_checkpoint(tmp_path):
    encoder = TextEncoder.fit(TEXTS, vocab_size=12, max_tokens=9)
    torch.save(encoder.to_dict(), tmp_path / "encoder.pt")
    again = TextEncoder.from_dict(torch.load(tmp_path / "encoder.pt", weights_only=True))
    assert torch.equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.to_dict() == encoder.to_dict()
