"""``proxy.route.path``: every row was answered by a real Envoy 1.40, unless it says otherwise."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.reply import Reply
from proxy.route.path import canonical_path, compile_normalize

NORMALIZE = compile_normalize(normalize_path=True, merge_slashes=False)
ALL = compile_normalize(normalize_path=True, merge_slashes=True, escaped_slashes="UNESCAPE_AND_FORWARD")
MERGE = compile_normalize(normalize_path=False, merge_slashes=True)
REDIRECT = compile_normalize(
    normalize_path=True, merge_slashes=False, escaped_slashes="UNESCAPE_AND_REDIRECT"
)
REJECT = compile_normalize(normalize_path=True, merge_slashes=False, escaped_slashes="REJECT_REQUEST")
OFF = compile_normalize(normalize_path=False, merge_slashes=False)


@pytest.mark.parametrize(
    ("target", "normalized", "with_slashes"),
    [
        (b"/", b"/", b"/"),
        (b"/a/b/", b"/a/b/", b"/a/b/"),
        (b"/a/../b", b"/b", b"/b"),
        (b"/a/./b", b"/a/b", b"/a/b"),
        (b"/a/%2e%2e/b", b"/b", b"/b"),
        (b"/a/.%2e/b", b"/b", b"/b"),
        (b"/a/%2E/b", b"/a/b", b"/a/b"),
        (b"/..", b"/", b"/"),
        (b"/../../x", b"/x", b"/x"),
        (b"/a/b/..", b"/a/", b"/a/"),
        (b"/a/b/.", b"/a/b/", b"/a/b/"),
        (b"/a//b", b"/a//b", b"/a/b"),
        (b"//a", b"//a", b"/a"),
        (b"/a/..//b", b"//b", b"/b"),
        (b"/a//../b", b"/a/b", b"/a/b"),
        (b"//..//x", b"//x", b"/x"),
        (b"/a\\b", b"/a/b", b"/a/b"),
        (b"/\\admin", b"//admin", b"/admin"),
        (b"/a\\..\\b", b"/b", b"/b"),
        (b"/a%2fb", b"/a%2fb", b"/a/b"),
        (b"/a%5Cb", b"/a%5Cb", b"/a/b"),
        (b"/%2fadmin", b"/%2fadmin", b"/admin"),
        (b"/a%2f..%2fb", b"/a%2f..%2fb", b"/b"),
        (b"/%2e%2e%2fb", b"/..%2fb", b"/b"),
        (b"/a%41b%7e%2d%5f", b"/aAb~-_", b"/aAb~-_"),
        (b"/a%20b%zz%c3%A4%2B%25", b"/a%20b%zz%c3%A4%2B%25", b"/a%20b%zz%c3%A4%2B%25"),
        (b"/a%", b"/a%", b"/a%"),
        (b"/a%2", b"/a%2", b"/a%2"),
        (b"/%a%41", b"/%25aA", b"/%25aA"),
        (b"/%%32%65", b"/%252e", b"/%252e"),
        (b"/%%41", b"/%A", b"/%A"),
        (b"/a%252e", b"/a%252e", b"/a%252e"),
        (b'/a|b"c<d>e{f}g`h^i', b"/a%7Cb%22c%3Cd%3Ee%7Bf%7Dg%60h%5Ei", b"/a%7Cb%22c%3Cd%3Ee%7Bf%7Dg%60h%5Ei"),
        (b"/a[b]'(c)!*:@&=+$,;x", b"/a[b]'(c)!*:@&=+$,;x", b"/a[b]'(c)!*:@&=+$,;x"),
        (b"/a/...", b"/a/...", b"/a/..."),
        (b"/a/..a/b", b"/a/..a/b", b"/a/..a/b"),
        (b"/a/..;/b", b"/b", b"/b"),
        (b"/a/.;x/b", b"/a/b", b"/a/b"),
        (b"/a/b/..;", b"/a/", b"/a/"),
        (b"/a;/../b", b"/b", b"/b"),
        (b"/a/..%3b/b", b"/a/..%3b/b", b"/a/..%3b/b"),
        (b"/a?x=/../y//z%2f", b"/a?x=/../y//z%2f", b"/a?x=/../y//z%2f"),
        (b"/..?x", b"/?x", b"/?x"),
        (b"/a/..?", b"/?", b"/?"),
        # not as Envoy, see docs/envoy-differences.md
        (b"///", b"///", b"/"),
        (b"/a/b/%2e%2e;x=1/c", b"/a/c", b"/a/c"),
        (b"/a/b\\..;/", b"/a/", b"/a/"),
    ],
)
def test_normalisation(target: bytes, normalized: bytes, with_slashes: bytes) -> None:
    assert NORMALIZE(target) == normalized
    assert ALL(target) == with_slashes


@pytest.mark.parametrize("target", [b"/a#x", b"/a?x#y", b"/#", b"/a/../b#"])
@pytest.mark.parametrize("normalize", [NORMALIZE, ALL, MERGE, OFF])
def test_a_fragment_is_refused_always(normalize: object, target: bytes) -> None:
    assert normalize(target) == Reply(400, details="path_normalization_failed")  # type: ignore[operator]


def test_an_escaped_nul_is_refused_when_paths_are_normalised() -> None:
    assert NORMALIZE(b"/a%00b") == Reply(400, details="path_normalization_failed")
    assert OFF(b"/a%00b") == b"/a%00b"


@pytest.mark.parametrize("target", [b"/a%2fb", b"/a%5Cb", b"/%2Fadmin"])
def test_escaped_slashes_may_be_refused(target: bytes) -> None:
    assert REJECT(target) == Reply(400, details="path_normalization_failed")
    assert REJECT(b"/a?x=%2f") == b"/a?x=%2f"


@pytest.mark.parametrize(
    ("target", "location"),
    [(b"/a%2fb?q=%2f", b"/a/b?q=%2f"), (b"/%2fadmin", b"//admin"), (b"/a%5c..%5cb", b"/b")],
)
def test_escaped_slashes_may_be_redirected(target: bytes, location: bytes) -> None:
    assert REDIRECT(target) == Reply(
        307, headers=b"location: " + location + b"\r\n", details="path_normalization_failed"
    )
    assert REDIRECT(b"/a/../b") == b"/b"


def test_merging_alone_keeps_dot_segments() -> None:
    assert MERGE(b"/a/..//b") == b"/a/../b"


@pytest.mark.parametrize("target", [b"/a/../b", b"/a%2fb", b"/a\\b", b"//a", b"/%41"])
def test_nothing_is_touched_without_options(target: bytes) -> None:
    assert OFF(target) == target


_PIECES = st.sampled_from(
    [b"/", b"//", b"..", b".", b"%2e", b"%2F", b"\\", b"%5c", b";x", b"a", b"%41", b"%25", b"|"]
)


@given(st.lists(_PIECES, max_size=12).map(lambda p: b"/" + b"".join(p)))
def test_the_normal_form_is_stable_and_has_no_dot_segment(target: bytes) -> None:
    for normalize in (NORMALIZE, ALL):
        once = normalize(target)
        assert isinstance(once, bytes)
        assert once.startswith(b"/")
        assert normalize(once) == once
        assert not any(s.partition(b";")[0] in (b".", b"..") for s in re.split(rb"[/\\]", once))
    assert b"//" not in ALL(target)  # type: ignore[operator]


@given(st.binary(max_size=20).map(lambda b: b"/" + b))
def test_any_bytes_become_visible_ascii_or_are_refused(path: bytes) -> None:
    canonical = canonical_path(path)
    assert canonical is None or re.fullmatch(rb"/[!-~]*", canonical)
