from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from control_plane.cli import manifest
from control_plane.cli.manifest import parse


def one(text: str) -> Any:
    """The value of ``x`` in a document that has no problem."""
    documents, problems = parse(f"x: {text}\n".encode(), "f.yaml")
    assert problems == []
    return documents[0].body["x"]


def wrong(text: str | bytes) -> list[str]:
    return [str(p) for p in parse(text if isinstance(text, bytes) else text.encode(), "f.yaml")[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-0", 0),
        ("0644", 644),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("9" * 60, "9" * 60),
        ("1e999", "1e999"),
        ('"1"', "1"),
        ("'true'", "true"),
        ("!!str 1", "1"),
        ("!!int 7", 7),
        ("! 7", "7"),
        ("[a, {b: 1}]", ["a", {"b": 1}]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("{1: a, true: b}", {"1": "a", "true": "b"}),
    ],
)
def test_values_follow_the_yaml_1_2_core_schema(text: str, value: Any) -> None:
    found = one(text)
    assert found == value
    assert type(found) is type(value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(texts, values, max_size=4))
def test_json_is_read_as_json(value: dict[str, Any]) -> None:
    assume("<<" not in value)
    # YAML knows no surrogate pairs as escapes, the one thing in which JSON is not a subset of it.
    documents, problems = parse(json.dumps(value, ensure_ascii=False).encode(), "f.json")
    assert problems == []
    assert [document.body for document in documents] == [value]


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), values, min_size=1, max_size=4))
def test_every_field_has_the_line_where_it_stands(value: dict[str, Any]) -> None:
    text = "# a comment\n\n" + yaml.safe_dump(value, allow_unicode=True)
    (document,), problems = parse(text.encode(), "f.yaml")
    assert problems == []
    lines = text.split("\n")
    for key in value:
        assert lines[document.line(key) - 1].startswith((f"{key}:", f"'{key}':")), key


MANIFEST = """\
# comment
apiVersion: v1
kind: Service
metadata:
  name: web
  labels:
    example.com/app: x
spec:
  ports:
  - name: http
    port: 80
  - {name: metrics,
     port: 90}
"""


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("", 2),
        ("kind", 3),
        ("metadata.name", 5),
        ("metadata.labels[example.com/app]", 7),
        ("metadata.labels[other.com/app]", 6),
        ("spec.ports[0]", 10),
        ("spec.ports[0].port", 11),
        ("spec.ports[1].name", 12),
        ("spec.ports[1].port", 13),
        ("spec.ports[1].targetPort", 12),
        ("spec.ports[7].port", 9),
        ("spec.selector.app", 8),
        ("nothing", 2),
    ],
)
def test_a_field_is_found_or_what_is_around_it(field: str, line: int) -> None:
    ((document,), _) = parse(MANIFEST.encode(), "f.yaml")
    assert document.line(field) == line
    assert str(document.problem(field, "bad")).startswith(f"f.yaml:{line}: Service default/web: ")


def test_several_documents_and_lists_count_lines_of_the_file() -> None:
    text = f"""---
{MANIFEST}---
# nothing
---
apiVersion: v1
kind: List
items:
- kind: A
  metadata: {{name: a}}
- kind: BList
  items:
  - metadata:
      name: b
"""
    documents, problems = parse(text.encode(), "f.yaml")
    assert problems == []
    assert [d.subject for d in documents] == ["Service default/web", "A default/a", "<no kind> default/b"]
    where = [document.line("metadata.name") for document in documents]
    lines = text.split("\n")
    assert [lines[line - 1].strip() for line in where] == ["name: web", "metadata: {name: a}", "name: b"]


def test_anchors_aliases_and_merges() -> None:
    text = """\
base: &base {a: 1, b: 2}
more: &more
  b: 3
  c: 4
x:
  <<: [*base, *more]
  a: 9
y: *base
"""
    (document,), problems = parse(text.encode(), "f.yaml")
    assert problems == []
    assert document.body["x"] == {"a": 9, "b": 2, "c": 4}
    assert document.body["y"] == {"a": 1, "b": 2}
    assert document.line("y.a") == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ["f.yaml:4: b.c: key 'c' is here twice, first at line 3"]),
        ("a: [1\n", ["f.yaml:2: is not YAML: "]),
        ("a: b: c\n", ["f.yaml:1: is not YAML: "]),
        ("a:\n\t- b\n", ["f.yaml:2: is not YAML: "]),
        ("a: *b\n", ["f.yaml:1: alias *b has no anchor"]),
        ("a: &a [*a]\n", ["f.yaml:1: alias *a has no anchor before it, or is inside it"]),
        ("a: !!binary aGk=\n", ["f.yaml:1: tag 'tag:yaml.org,2002:binary' is not supported"]),
        ("a: !!python/object/apply:os.system [ls]\n", ["f.yaml:1: tag "]),
        ("a: !mine {}\n", ["f.yaml:1: tag '!mine' is not supported"]),
        ("a: .inf\n", ["f.yaml:1: .inf is not a value that JSON has"]),
        ("? [a]\n: b\n", ["f.yaml:1: a key must be plain text"]),
        ("<<: 1\n", ["f.yaml:1: << must name a mapping"]),
        ("just text\n", ["f.yaml:1: must be an object"]),
        ("- a\n", ["f.yaml:1: must be an object"]),
        ("kind: AList\nitems: [1]\n", ["f.yaml:2: must be an object"]),
        (b"a: 1\nb: \xff\n", ["f.yaml:2: is not UTF-8"]),
        ("a: \x07\n", ["f.yaml: is not YAML: "]),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str | bytes, expected: list[str]) -> None:
    found = wrong(text)
    assert len(found) == len(expected), found
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start), message


def test_documents_before_a_syntax_error_are_still_read() -> None:
    documents, problems = parse(b"a: 1\n---\nb: [\n", "f.yaml")
    assert [document.body for document in documents] == [{"a": 1}]
    assert len(problems) == 1


def test_a_billion_laughs_end_early() -> None:
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found = wrong("\n".join(lines))
    assert len(found) == 1
    assert f"more than {manifest.MAX_VALUES} values" in found[0]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_ends_early(opening: str) -> None:
    found = wrong("x:\n  " + opening * 200)
    assert len(found) == 1
    assert "nested more than 100 levels" in found[0] or "not YAML" in found[0]


def test_a_file_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", 10)
    assert wrong("a: 1234567890") == ["f.yaml: is larger than 10 bytes"]
