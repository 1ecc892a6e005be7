"""``proxy.route.domains``: virtual hosts by authority, each row as a real Envoy 1.40 answered."""

from __future__ import annotations

import pytest

from proxy.model.config import ConfigError
from proxy.route.domains import Domains, without_port

ENVOY = [
    ("foo.com", "exact"),
    ("foo.com:8080", "exactport"),
    ("*.foo.com", "suf"),
    ("*.b.foo.com", "suf2"),
    ("*-x.foo.com", "sufx"),
    ("foo.*", "pre"),
    ("foo.bar.*", "pre2"),
    ("[::1]", "six"),
]


@pytest.mark.parametrize(
    ("host", "kept", "ignored"),
    [
        (b"foo.com", "exact", "exact"),
        (b"FOO.com", "exact", "exact"),
        (b"foo.com:8080", "exactport", "exact"),
        (b"foo.com:80", "pre", "exact"),
        (b"foo.com.", "pre", "pre"),
        (b"a.foo.com", "suf", "suf"),
        (b"a.b.foo.com", "suf2", "suf2"),
        (b"a-x.foo.com", "sufx", "sufx"),
        (b".foo.com", None, "any"),
        (b"-x.foo.com", "suf", "suf"),
        (b"foo.net", "pre", "pre"),
        (b"foo.bar.net", "pre2", "pre2"),
        (b"foo.", None, "any"),
        (b"a.foo.com:80", None, "suf"),
        (b"foo.net:81", "pre", "pre"),
        (b"[::1]", "six", "six"),
        (b"[::1]:80", None, "six"),
        (b"other", None, "any"),
        (b"foo.com:", "pre", "exact"),
        (b"foo.com:abc", "pre", "exact"),
        (b"", None, "any"),
    ],
)
def test_find(host: bytes, kept: str | None, ignored: str) -> None:
    entries = [(domain, name, "f") for domain, name in ENVOY]
    assert Domains(entries).find(host) == kept
    assert Domains([*entries, ("*", "any", "f")], ignore_port=True).find(host) == ignored


@pytest.mark.parametrize(
    ("domains", "why"),
    [
        (["a", "A"], "already taken"),
        (["*", "*"], "already taken"),
        ([""], "empty"),
        (["a*b"], "one end"),
        (["*a*"], "one end"),
    ],
)
def test_what_cannot_be_a_domain(domains: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Domains([(d, d, f"vh.domains[{n}]") for n, d in enumerate(domains)])
    assert caught.value.path == f"vh.domains[{len(domains) - 1}]"


@pytest.mark.parametrize(
    ("host", "bare"), [(b"a:1", b"a"), (b"a", b"a"), (b"[::1]:1", b"[::1]"), (b"[::1]", b"[::1]")]
)
def test_without_port(host: bytes, bare: bytes) -> None:
    assert without_port(host) == bare
