"""Several processes that serve as one sidecar (``--workers N``).

``spawner`` forks, ``pool`` leads (in the process that talks to the control plane), ``process`` serves; they speak
``messages`` over a ``channel``. Why it is so: docs/decisions/0008-workers.md.
"""
