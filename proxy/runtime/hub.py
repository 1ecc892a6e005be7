"""The one place where a configuration takes effect."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.config import Config
from proxy.runtime.compile import CompileEnv, compile_config
from proxy.runtime.runtime import Runtime

Subscriber = Callable[[Runtime, Runtime], None]
Prepare = Callable[[Config], Callable[[], None]]


class Hub:
    """``current`` is the snapshot in force; before the first ``apply`` it is an empty one."""

    __slots__ = ("_env", "_parts", "_subscribers", "current")

    def __init__(self, env: CompileEnv) -> None:
        self._env = env
        self._subscribers: list[Subscriber] = []
        self._parts: list[Prepare] = []
        self.current: Runtime = compile_config(Config(), None, env)

    def join(self, prepare: Prepare) -> None:
        """Have a part of the process take effect together with the snapshot.

        ``prepare(config)`` changes nothing; it raises ``ConfigError``, or returns what puts the part's share into force
        and cannot fail.
        """
        self._parts.append(prepare)

    def subscribe(self, on_swap: Subscriber) -> None:
        """Have ``on_swap(old, new)`` called after each swap, in order of subscription."""
        self._subscribers.append(on_swap)

    def check(self, config: Config) -> None:
        """Try whether ``config`` could be used, and change nothing. Raises ``ConfigError``."""
        self.prepare(config)

    def apply(self, config: Config) -> Runtime:
        """Compile ``config`` and make it current.

        Raises ``ConfigError`` with the field path if it cannot be used; then nothing has changed.
        """
        return self.prepare(config)()

    def prepare(self, config: Config) -> Callable[[], Runtime]:
        """Compile ``config`` and change nothing. Raises ``ConfigError``.

        What is returned makes it current and cannot fail; it must not be called any more once another one was.
        """
        old = self.current
        new = compile_config(config, old, self._env)
        prepared = [prepare(config) for prepare in self._parts]

        def commit() -> Runtime:
            for step in (*new.commit, *prepared):
                step()
            self.current = new
            for on_swap in self._subscribers:
                on_swap(old, new)
            return new

        return commit
