"""The in-memory store that tests use keeps the same contract as the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from control_plane.store.base import Store
from tests.fakes.store import FakeStore
from tests.unit.store.store_suite import StoreSuite


class TestFakeStore(StoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = FakeStore()
        yield store
        await store.close()
