"""From configuration to runtime: pure, no input or output, no clock.

``compile_config(config, previous, env)`` builds a ``Runtime``; what it shares with ``previous`` (clusters, statistics)
changes only when the hub runs the new runtime's ``commit`` steps.
"""

from __future__ import annotations

from proxy.runtime.compile.compile import compile_config
from proxy.runtime.compile.env import CompileEnv

__all__ = ["CompileEnv", "compile_config"]
