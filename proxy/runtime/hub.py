"""The one place where a configuration takes effect."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.config import Config
from proxy.runtime.compile import CompileEnv, compile_config
from proxy.runtime.runtime import Runtime

Subscriber = Callable[[Runtime, Runtime], None]


class Hub:
    """``current`` is the snapshot in force; before the first ``apply`` it is an empty one."""

    __slots__ = ("_env", "_subscribers", "current")

    def __init__(self, env: CompileEnv) -> None:
        self._env = env
        self._subscribers: list[Subscriber] = []
        self.current: Runtime = compile_config(Config(), None, env)

    def subscribe(self, on_swap: Subscriber) -> None:
        """Have ``on_swap(old, new)`` called after each swap, in order of subscription."""
        self._subscribers.append(on_swap)

    def check(self, config: Config) -> None:
        """Try whether ``config`` could be used, and change nothing. Raises ``ConfigError``."""
        compile_config(config, self.current, self._env)

    def apply(self, config: Config) -> Runtime:
        """Compile ``config`` and make it current.

        Raises ``ConfigError`` with the field path if it cannot be used; then nothing has changed.
        """
        old = self.current
        new = compile_config(config, old, self._env)
        for step in new.commit:
            step()
        self.current = new
        for on_swap in self._subscribers:
            on_swap(old, new)
        return new
