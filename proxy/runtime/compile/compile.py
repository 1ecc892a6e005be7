"""The whole configuration."""

from __future__ import annotations

from proxy.model.config import Config
from proxy.observe.store import StatStore
from proxy.runtime.compile.env import CompileEnv
from proxy.runtime.runtime import Runtime


def compile_config(config: Config, previous: Runtime | None, env: CompileEnv) -> Runtime:
    """Compile ``config``; parts equal to ``previous``'s are reused.

    Raises ``ConfigError`` with the field path of what cannot be used.
    """
    return Runtime(
        version=config.version,
        config=config,
        listeners={},
        clusters={},
        stats=StatStore() if previous is None else previous.stats,
    )
