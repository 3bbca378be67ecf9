"""What a person's document may hold, and how a broken one is described."""

import json

import pytest

from flowerbed.events.documents import MAX_BYTES, MAX_DEPTH, DocumentUnreadable, read_document


def test_yaml_and_json_of_one_document_are_the_same_value() -> None:
    value = {"name": "a", "n": 3, "rate": 0.5, "list": [1, {"b": None}], "ok": True, "empty": {}}
    yaml_text = b"name: a\nn: 3\nrate: 0.5\nlist:\n- 1\n- b:\nok: true\nempty: {}\n"

    assert read_document(yaml_text) == value
    assert read_document(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("1e-3", 0.001),
        ("1.", 1.0),
        (".5", 0.5),
        ("-7", -7),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("~", None),
        ("True", True),
        ("'true'", "true"),
        ('"3"', "3"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("1_000", "1_000"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    found = read_document(f"key: {text}".encode())

    assert found == {"key": value}
    assert isinstance(found, dict) and type(found["key"]) is type(value)


def test_keys_are_always_text() -> None:
    assert read_document(b"1: a\ntrue: b\n~: c") == {"1": "a", "true": "b", "~": "c"}


def test_yaml_in_braces_is_read() -> None:
    assert read_document(b"{a: 1, b: [x, y]}") == {"a": 1, "b": ["x", "y"]}


def test_json_indented_with_tabs_and_with_escaped_pairs_is_read() -> None:
    assert read_document(b'{\n\t"a": "\\ud83c\\udf38"\n}') == {"a": "\N{CHERRY BLOSSOM}"}


def test_a_byte_order_mark_is_no_part_of_the_document() -> None:
    assert read_document("\ufeffa: 1".encode()) == {"a": 1}


def test_an_empty_document_is_nothing() -> None:
    assert read_document(b"") is None
    assert read_document(b"# only a comment\n") is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given twice"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"a: &x 1\nb: *x", "line 1, column 4: anchors are not read"),
        (b"a: *x", "line 1, column 4: aliases are not read"),
        (b"a: !!python/object:os.system x", "line 1, column 4: the tag 'tag:yaml.org,2002:py"),
        (b"a: 1\n---\nb: 2", "line 2, column 1: a second document begins"),
        (b"a: [1, 2", "line 2, column 1: did not find expected"),
        (b"a: b: c", "line 1, column 5: mapping values are not allowed"),
        (b"? [a, b]\n: 1", "line 1, column 3: a key must be text"),
        (b'{"a": 1,, "b": 2}', "line 1, column 9: "),
        (b"{a: 1, a: 2}", "line 1, column 8: the key 'a' is given twice"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"a: \x07", "special characters are not allowed|control characters"),
        (b"a: .nan", "line 1, column 4: '.nan' is not a finite number"),
        (b"a: -.INF", "'-.inf' is not a finite number"),
        (b'{"a": NaN}', "'NaN' is not a finite number"),
        (b'{"a": 1e999}', "'1e999' is not a finite number"),
        (b"a: " + b"9" * 5000, "line 1, column 4: a number of 5000 digits is too long"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits is too long"),
        (b"a: " + b"[" * 80 + b"]" * 80, f"nested deeper than {MAX_DEPTH}"),
        (b"[" * 80 + b"]" * 80, f"nested deeper than {MAX_DEPTH}"),
        (b"[" * 100_000, f"nested deeper than {MAX_DEPTH}"),
        (b"x" * (MAX_BYTES + 1), f"{MAX_BYTES + 1} bytes, at most {MAX_BYTES} are read"),
    ],
)
def test_unreadable_documents_say_where_and_why(raw: bytes, message: str) -> None:
    with pytest.raises(DocumentUnreadable, match=message):
        read_document(raw)
