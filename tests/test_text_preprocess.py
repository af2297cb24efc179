"""Texts as tokens: any Unicode, long texts, what is named where it cannot be read, and what all but coincides."""

import hashlib
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from headstart.errors import ArtifactError, SettingError
from headstart.preprocess import shingles
from headstart.preprocess.items import UnreadableItemError
from headstart.preprocess.recipe import preprocess_from_json
from headstart.preprocess.text import PADDING, TextPreprocess
from headstart.preprocess.text_items import excerpt, read_text
from headstart.preprocess.token_patterns import is_catastrophic, patterns_in

WORDS = [f"w{number}" for number in range(50)]
BEGIN, END, UNKNOWN = 0, 1, 2


def write_tokenizer(*, special=True):
    """A tokenizer of fifty words: w0 is token 3, w1 token 4, and so on."""
    known = {"[CLS]": BEGIN, "[SEP]": END, "[UNK]": UNKNOWN} | {word: number for number, word in enumerate(WORDS, 3)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", BEGIN), ("[SEP]", END)]
        )
    tokenizer.enable_truncation(5)  # of a checkpoint's own, which must not cut anything here
    tokenizer.enable_padding(length=9)
    return tokenizer.to_str()


@pytest.fixture(scope="module")
def recipe():
    return TextPreprocess(tokenizer=write_tokenizer(), max_tokens=10)


def text_of(count):
    return " ".join(WORDS[:count])


def ids_of(*numbers):
    return [3 + number for number in numbers]


# Tokens


def test_short_texts_are_their_tokens_between_the_special_ones(recipe):
    for fitting in recipe.fittings:
        prepared = recipe.with_fitting(fitting).prepare("W3  w1\nunheard")
        assert prepared.tolist() == [BEGIN, *ids_of(3, 1), UNKNOWN, END] and prepared.dtype == np.int64


def test_what_is_read_of_a_long_text(recipe):
    long = text_of(20)
    assert recipe.prepare(long).tolist() == [BEGIN, *ids_of(*range(8)), END]
    assert recipe.with_fitting("head+tail").prepare(long).tolist() == [BEGIN, *ids_of(0, 1, *range(14, 20)), END]
    windows = recipe.with_fitting("windows").prepare(long).reshape(-1, 10).tolist()
    assert windows == [
        [BEGIN, *ids_of(*range(8)), END],
        [BEGIN, *ids_of(*range(8, 16)), END],
        [BEGIN, *ids_of(*range(16, 20)), END] + [PADDING] * 4,
    ]
    few = TextPreprocess(tokenizer=recipe.tokenizer, max_tokens=10, fitting="windows", max_windows=2)
    assert len(few.prepare(long)) == 20


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17, 50])
def test_every_fitting_begins_at_the_beginning_and_fits(recipe, count):
    for fitting in recipe.fittings:
        ids = recipe.with_fitting(fitting).prepare(text_of(count))
        assert ids[0] == BEGIN and ids[1] == 3 and len(ids) <= 10 * -(-count // 8)
        assert set(ids[ids != PADDING].tolist()) <= {BEGIN, END, *range(3, 53)}
    whole = recipe.with_fitting("windows").prepare(text_of(count))
    assert [token for token in whole.tolist() if token >= 3] == ids_of(*range(count))


def test_a_tokenizer_without_special_tokens_uses_all_the_room():
    plain = TextPreprocess(tokenizer=write_tokenizer(special=False), max_tokens=10)
    assert plain.prepare(text_of(20)).tolist() == ids_of(*range(10)) and plain.room == 10


def test_a_batch_is_padded_to_its_longest(recipe):
    batch = recipe.collate([recipe.prepare(text_of(count)) for count in (1, 5, 3)])
    assert batch.shape == (3, 7) and batch.dtype == np.int64
    assert (batch == PADDING).sum(axis=1).tolist() == [4, 0, 2]
    windows = recipe.with_fitting("windows")
    assert windows.collate([windows.prepare(text_of(count)) for count in (9, 2)]).shape == (2, 20)
    assert recipe.example(3).shape == (3, 20)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_any_unicode_is_tokens_or_is_refused(text):
    recipe = TextPreprocess(tokenizer=write_tokenizer(), max_tokens=10, fitting="windows")
    try:
        prepared = recipe.prepare(text)
    except UnreadableItemError as refused:
        assert not text.strip() and refused.kind == "empty"
        return
    assert prepared[0] == BEGIN and len(prepared) <= 80
    if "\r" not in text:
        assert recipe.prepare(text.encode()).tolist() == recipe.prepare(text.removeprefix("\ufeff") or text).tolist()
    assert recipe.digest(text) == hashlib.sha256(text.encode()).digest()


def test_a_megabyte_of_one_word_is_a_text(recipe):
    for text in ("w" * 1_000_000, "w1 " * 330_000):
        assert len(recipe.prepare(text)) <= 10
        assert len(recipe.with_fitting("windows").prepare(text)) <= 80


# Items


def test_a_file_and_its_content_have_one_key(recipe, tmp_path):
    text = "grüße, мир\n二"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "marked.txt").write_text(text, encoding="utf-8-sig")
    for item in (text, text.encode(), tmp_path / "a.txt", tmp_path / "marked.txt"):
        assert recipe.digest(recipe.load(item)) == hashlib.sha256(text.encode()).digest()
        assert recipe.load(item) == text
    assert recipe.size(tmp_path / "a.txt") == len(text.encode()) and recipe.size(tmp_path / "none.txt") == 0


@pytest.mark.parametrize(
    ("item", "kind", "reason"),
    [
        ("", "empty", "is empty"),
        (b"", "empty", "is empty"),
        (" \n\t\u3000", "empty", "holds only white space"),
        (b"fine\nna\xefve\n", "unreadable", r"line 2 is no UTF-8 \(byte 0xef\)"),
        ("a\nb\udce9", "unreadable", r"line 2 is no UTF-8 \(byte 0xe9\)"),
        ("a\ud83d", "unreadable", r"holds half a character \(a lone surrogate\) in line 1"),
        (3.5, "unsupported", "is no text, but an object of type float"),
        (np.zeros((2, 2, 3), np.uint8), "unsupported", "is no text, but an array"),
    ],
)
def test_what_is_no_text_is_named_with_the_reason(recipe, item, kind, reason):
    with pytest.raises(UnreadableItemError, match=f"the third: {reason}") as caught:
        recipe.load(item, name="the third")
    assert caught.value.kind == kind and caught.value.mend


def test_a_missing_file_is_named(recipe, tmp_path):
    with pytest.raises(UnreadableItemError, match=r"no\.txt: there is no such file"):
        recipe.load(tmp_path / "no.txt")
    assert recipe.load(str(tmp_path / "no.txt")) == str(tmp_path / "no.txt")


# Saved


def test_json_reads_back_strictly(recipe):
    spec = json.loads(json.dumps(recipe.with_fitting("windows").as_json()))
    assets = {"tokenizer.json": recipe.tokenizer.encode()}
    restored = preprocess_from_json(spec, assets.__getitem__)
    assert restored == recipe.with_fitting("windows") and restored.assets == assets
    assert restored.fingerprint() == recipe.with_fitting("windows").fingerprint() != recipe.fingerprint()
    for change in (
        {"rules": 2}, {"fitting": "tail"}, {"max_tokens": "10"}, {"max_tokens": 3}, {"more": 1}, {"kind": "sound"},
    ):  # fmt: skip
        with pytest.raises(ArtifactError):
            preprocess_from_json(spec | change, assets.__getitem__)
    with pytest.raises(ArtifactError, match="missing or unknown: max_windows"):
        preprocess_from_json({name: value for name, value in spec.items() if name != "max_windows"}, assets.__getitem__)
    other = write_tokenizer(special=False).encode()
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is another than the recipe names"):
        preprocess_from_json(spec, {"tokenizer.json": other}.__getitem__)


@pytest.mark.parametrize("wrong", [{"fitting": "pad"}, {"max_tokens": 7}, {"max_windows": 0}])
def test_settings_that_cannot_work_are_refused(recipe, wrong):
    with pytest.raises(SettingError, match="texts cannot be fitted"):
        TextPreprocess(**{"tokenizer": recipe.tokenizer, **wrong})


def test_the_kept_beginning_prepares_as_it_did(recipe):
    kept = recipe.keep("w1 " * 2000)
    assert len(kept) <= 2000
    assert recipe.compare(recipe.prepare(kept), recipe.prepare("w1 " * 2000)) == ""
    assert recipe.compare(recipe.prepare("w1"), recipe.prepare("w2")) == "other tokens here"


# What the network does not see


def test_unknown_tokens_are_told_with_their_share(recipe):
    (found,) = recipe.notice({"known": "w1 w2 w3", "half": "w1 мир", "none": "всё это чужое"})
    assert (found.kind, found.severity, found.items) == ("unknown_tokens", "warning", ("half", "none"))
    assert found.message.startswith("50% of the tokens of 3 texts") and "--backbone" in found.mend
    assert recipe.notice({"known": "w1 w2 w3"}) == []
    (found,) = recipe.notice({f"known {number}": "w1 w2 w3 w4 w5 w6" for number in range(40)} | {"strange": "всё это"})
    assert (found.kind, found.items) == ("unknown_tokens", ("strange",)) and found.message.startswith("1 of 41 texts")


def test_longer_texts_are_told_with_their_number(recipe):
    (found,) = recipe.notice({"short": "w1", "long": text_of(9), "just": text_of(8)})
    assert (found.kind, found.severity, found.items) == ("long_texts", "info", ("long",))
    assert "1 of 3 texts looked at are longer than the 8 tokens" in found.message
    assert "3 of 3" not in recipe.indifferent(["w1"] * 3) and recipe.indifferent([text_of(20)]) == ""


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=400), st.integers(1, 40))
def test_an_excerpt_is_one_short_line(text, limit):
    shown = excerpt(text, limit)
    assert len(shown) <= limit and "\n" not in shown
    if len(" ".join(text.split())) <= limit and len(text) <= 4 * limit:
        assert shown == " ".join(text.split())


# Near copies

STORY = (
    "The committee met on Tuesday to discuss the budget for the coming year, and after three hours of debate it agreed to "
    "spend more on the library, less on roads, and nothing at all on the statue that the mayor had asked for in spring."
)


def test_near_copies_are_told_by_their_characters():
    changed = [
        STORY, STORY.upper(), "> " + STORY.replace(", ", ",\n>  "), STORY.replace("Tuesday", "Monday"), STORY[:-12],
        "The budget of the coming year was discussed for three hours; the library will get more, and the statue nothing.",
        "One of the best films of the year.", "This is one of the year's best films.", "ok", "OK!", "no",
    ]  # fmt: skip
    groups = {frozenset(pair) for pair in shingles.find_near_copies(changed)}
    joined = set().union(*(pair for pair in groups if pair <= {0, 1, 2, 3, 4}))
    assert joined == {0, 1, 2, 3, 4}
    assert groups - {pair for pair in groups if pair <= {0, 1, 2, 3, 4}} == {frozenset({8, 9})}
    assert shingles.find_near_copies([]) == shingles.find_near_copies(["one"]) == []


def test_a_script_without_spaces_has_near_copies_too():
    text = "委员会星期二开会讨论来年的预算，经过三小时的辩论，决定在图书馆上多花钱，在道路上少花钱。"
    other = "昨天晚上我和朋友一起去看了一场非常精彩的足球比赛，我们支持的球队最后以三比一获胜了。"
    assert shingles.find_near_copies([text, other, text.replace("，", " ")]) == [(0, 2)]


def test_many_copies_of_one_text_are_joined():
    pairs = shingles.find_near_copies([STORY + f" No {number}." for number in range(60)])
    reached = {0}
    for one, other in pairs:
        if one in reached or other in reached:
            reached |= {one, other}
    assert reached == set(range(60))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abcdefghij klmnop"), min_size=40, max_size=200).map("".join), st.integers(0, 2**32))
def test_the_share_in_common_is_jaccards(text, seed):
    cut = np.random.default_rng(seed).integers(0, len(text))
    other = text[:cut] + text[cut + 5 :]
    runs = [{plain[at : at + 8] for at in range(max(1, len(plain) - 7))} for plain in map(plain_of, (text, other))]
    wanted = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    assert shingles.share_of(shingles.shingle(text), shingles.shingle(other)) == pytest.approx(wanted)


def plain_of(text):
    return (" ".join(text.split()) or text.strip()).ljust(8)


def test_reading_names_the_text_where_nobody_else_does():
    with pytest.raises(UnreadableItemError, match="the text ' ': holds only white space"):
        read_text(" ")


def test_combining_marks_tell_words_apart():
    """Hindi vowel signs, Thai and Hebrew points and accents belong to the letter before them."""
    for words in (
        ["कि", "की", "कु", "के"],
        ["தி", "து", "தீ", "தெ"],
        ["ที่", "ทุ", "ทิ", "ทู"],
        ["e\u0331", "e\u0330", "e\u032d", "e"],
    ):
        assert shingles.find_near_copies([word * 12 for word in words]) == []
        assert shingles.find_near_copies(words) == []


def test_gaps_and_normalisation_make_no_difference_with_marks():
    text = "यह किताब बहुत अच्छी है और मुझे पसंद आई"
    assert shingles.find_near_copies([text, f"  {text.replace(' ', ', ')}! ❤\ufe0f"]) == [(0, 1)]
    accented = "Déjà vu: une élève très âgée a mangé le pâté, à côté de la forêt."
    assert shingles.find_near_copies([accented, unicodedata.normalize("NFD", accented)]) == [(0, 1)]


def letters_and_words(words):
    """A WordPiece tokenizer of some words, and of the Cyrillic letters."""
    letters = [*(chr(code) for code in range(0x430, 0x450)), *"天気がい"]
    vocabulary = ["[UNK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    opened = Tokenizer(models.WordPiece({word: place for place, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    opened.normalizer = normalizers.Lowercase()
    opened.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return TextPreprocess(tokenizer=opened.to_str(), max_tokens=128)


def test_a_language_that_is_spelled_letter_by_letter_is_reported():
    english = "the weather was fine today and everybody went outside".split()
    recipe = letters_and_words(english)
    assert recipe.lower_cases
    russian = "сегодня была хорошая погода и все вышли гулять"
    assert [finding.kind for finding in recipe.notice({"a": russian})] == ["unknown_language"]
    assert recipe.notice({"a": " ".join(english).title()}) == []
    assert recipe.notice({"a": "天気がいい"}) == []
    mixed = {"ru": russian, **{f"en{number}": " ".join(english) for number in range(9)}}
    assert recipe.notice(mixed) == []


def _opened(content):
    told = {"kind": "text", "rules": 1, "max_tokens": 16, "fitting": "head", "max_windows": 2}
    told["tokenizer_sha256"] = hashlib.sha256(content).hexdigest()
    return TextPreprocess.from_json(told, lambda _: content).opened


@pytest.mark.parametrize(
    "content", [b"{}", b"", b"[]", b"null", b'{"model": 3}', b"\xff\xfe", b'{"model": {"type": "WordPiece"}}', b"[" * 100_000]
)
def test_a_damaged_tokenizer_ends_in_an_error_in_words(content):
    with pytest.raises(ArtifactError, match=r"tokenizer\.json|text preprocess"):
        _opened(content)


@pytest.mark.parametrize("name", ["max_tokens", "max_windows"])
@pytest.mark.parametrize("value", [8.5, float("inf"), 10**400, True, None, "16"])
def test_counts_that_are_no_whole_numbers_in_range_are_refused(name, value):
    with pytest.raises((SettingError, ArtifactError)):
        TextPreprocess(**{"tokenizer": "{}", name: value})


@pytest.mark.parametrize(
    ("pattern", "exponential"),
    [
        ("(a+)+", True),
        ("(?:x*)*y", True),
        (r"((a|b)+c?)*", True),
        (r"(\w+\s?){2,}", True),
        (r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", False),
        (r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+", False),
        ("[(]+[)]+", False),
    ],
)
def test_regular_expressions_of_exponential_time_are_known(pattern, exponential):
    assert is_catastrophic(pattern) == exponential
    told = json.dumps({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}}, "model": {}})
    assert patterns_in(told) == [pattern]
    if exponential:
        with pytest.raises(ArtifactError, match="exponential"):
            _opened(told.encode())


def test_a_tokenizer_that_lacks_its_unknown_token_is_refused():
    opened = Tokenizer(models.WordPiece({"a": 0, "[OTHER]": 1}, unk_token="[UNK]"))
    with pytest.raises(ArtifactError, match="UNK"):
        _opened(opened.to_str().encode())
