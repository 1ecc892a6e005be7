"""What the compiler is given by its surroundings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.observe.log_file import LogFiles


@dataclass(frozen=True, slots=True)
class CompileEnv:
    """``random`` gives floats in [0, 1). ``hostname`` is ``%HOSTNAME%``."""

    random: Callable[[], float] = random.random
    log_files: LogFiles = field(default_factory=LogFiles)
    hostname: str = ""
