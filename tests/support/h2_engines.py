"""The HTTP/2 engines in turn, for tests whose sidecar runs in their own process."""

from __future__ import annotations

import pytest

from proxy.http2 import codec


@pytest.fixture(params=codec.ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Has every connection that the test makes use the engine, whichever ``TULLE_HTTP2`` names."""
    chosen = codec.ENGINES[request.param]
    for name in ("make", "never_indexed", "dispatch_table"):
        monkeypatch.setattr(codec, name, getattr(chosen, name))
    monkeypatch.setattr(codec, "ENGINE", chosen)
    return chosen.name
