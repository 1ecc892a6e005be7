from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.spiffe import MAX_ID_BYTES, SpiffeId, SpiffeIdError

SEGMENT = st.from_regex(r"\A[A-Za-z0-9._-]{1,20}\Z").filter(lambda text: text not in (".", ".."))
TRUST_DOMAIN = st.from_regex(r"\A[a-z0-9._-]{1,40}\Z")


@given(TRUST_DOMAIN, st.lists(SEGMENT, max_size=6))
def test_a_well_formed_id_reads_back_as_written(trust_domain: str, segments: list[str]) -> None:
    text = f"spiffe://{trust_domain}" + "".join(f"/{segment}" for segment in segments)
    parsed = SpiffeId.parse(text)
    assert str(parsed) == text
    assert parsed.trust_domain == trust_domain
    assert parsed.path == text[len("spiffe://") + len(trust_domain) :]


@given(TRUST_DOMAIN, SEGMENT, SEGMENT)
def test_workload_ids_name_their_parts(trust_domain: str, namespace: str, account: str) -> None:
    made = SpiffeId.workload(trust_domain, namespace, account)
    assert (made.trust_domain, made.namespace, made.service_account) == (trust_domain, namespace, account)
    assert SpiffeId.parse(str(made)) == made


REFERENCE = re.compile(r"spiffe://(?P<td>[a-z0-9._-]+)(?P<path>(/[A-Za-z0-9._-]+)*)", re.ASCII)


@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="spife:/.abAB%?#@-_ é\n", max_size=40).map(lambda text: "spiffe://" + text),
        st.lists(st.sampled_from(["spiffe://", "a", "/", ".", "..", "A", ":", "%2e"]), max_size=8).map(
            "".join
        ),
    )
)
def test_parse_agrees_with_the_grammar(text: str) -> None:
    match = REFERENCE.fullmatch(text)
    expected = (
        match is not None and len(match["td"]) <= 255 and not {".", ".."} & set(match["path"].split("/"))
    )
    if expected:
        assert str(SpiffeId.parse(text)) == text
    else:
        with pytest.raises(SpiffeIdError):
            SpiffeId.parse(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "must begin with 'spiffe://'"),
        ("http://mesh.local/a", "must begin with 'spiffe://'"),
        ("SPIFFE://mesh.local/a", "lower case"),
        ("spiffe:mesh.local/a", "must begin with"),
        ("spiffe://", "trust domain is empty"),
        ("spiffe:///ns/a", "trust domain is empty"),
        ("spiffe://Mesh.local/a", "trust domain may hold only"),
        ("spiffe://mesh.local:443/a", "port"),
        ("spiffe://user@mesh.local/a", "user information"),
        ("spiffe://m%65sh/a", "percent-encoding"),
        ("spiffe://mesh.local/a%2fb", "percent-encoding"),
        ("spiffe://mesh.local/a?b", "query"),
        ("spiffe://mesh.local/a#b", "fragment"),
        ("spiffe://mesh.local/", "trailing '/'"),
        ("spiffe://mesh.local/a/", "trailing '/'"),
        ("spiffe://mesh.local//a", "empty segment"),
        ("spiffe://mesh.local/./a", "'.'"),
        ("spiffe://mesh.local/a/..", "'..'"),
        ("spiffe://mesh.local/a b", "may hold only letters"),
        ("spiffe://mesh.local/a\n", "may hold only letters"),
        ("spiffe://mesh.local/\x00", "may hold only letters"),
        ("spiffe://mesh.local/é", "may hold only letters"),
        ("spiffe://mesh.local/a\\b", "may hold only letters"),
        ("spiffe://" + "a" * 256, "longer than 255"),
        ("spiffe://mesh.local/" + "a" * MAX_ID_BYTES, "longer than 2048"),
    ],
)
def test_errors_name_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(SpiffeIdError, match=re.escape(wrong)):
        SpiffeId.parse(text)


def test_the_longest_id_is_accepted() -> None:
    text = "spiffe://mesh.local/".ljust(MAX_ID_BYTES, "a")
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize("path", ["", "/ns/a", "/ns/a/sa", "/ns/a/sa/b/c", "/sa/a/ns/b", "/x/ns/a/sa/b"])
def test_other_paths_have_no_namespace_and_account(path: str) -> None:
    parsed = SpiffeId.parse(f"spiffe://mesh.local{path}")
    assert (parsed.namespace, parsed.service_account) == (None, None)


@pytest.mark.parametrize(
    ("trust_domain", "namespace", "account"),
    [
        ("mesh.local", "a/sa/b", "c"),
        ("mesh.local", "a", "b/c"),
        ("mesh.local", "", "b"),
        ("mesh.local", "..", "b"),
        ("mesh.local/ns/x/sa/y", "a", "b"),
        ("", "a", "b"),
    ],
)
def test_workload_refuses_names_that_would_move_the_borders(
    trust_domain: str, namespace: str, account: str
) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.workload(trust_domain, namespace, account)


@pytest.mark.parametrize("trust_domain", ["mesh.local/a", "", "A", "a:1"])
def test_a_trust_domain_is_no_path(trust_domain: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.of_trust_domain(trust_domain)
