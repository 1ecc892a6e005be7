"""What the compiler is given by its surroundings."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.cluster.cluster import ignore_removed
from proxy.cluster.host import Host
from proxy.observe.log_file import LogFiles


@dataclass(frozen=True, slots=True)
class CompileEnv:
    """``random`` gives floats in [0, 1). ``hostname`` is ``%HOSTNAME%``.

    ``on_host_removed`` is called for each host that leaves a cluster: its idle connections are to be closed.
    """

    random: Callable[[], float] = random.random
    log_files: LogFiles = field(default_factory=LogFiles)
    hostname: str = ""
    on_host_removed: Callable[[Host], None] = ignore_removed
