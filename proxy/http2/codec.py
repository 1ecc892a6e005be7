"""Temporary: see branch codec."""

from __future__ import annotations

from typing import Any

from ngh2 import Configuration as Configuration
from ngh2 import Connection as Connection
from ngh2 import Role as Role
from ngh2.events import *  # noqa: F403
from ngh2.exceptions import NGH2Error

CodecError = NGH2Error
MAX_CONCURRENT_STREAMS = 3
Codec = Connection


def make(role: Role, options: Any, *, max_headers_kb: int) -> Connection:
    made = Connection(
        role,
        Configuration(
            auto_window_update=False,
            peer_max_concurrent_streams=options.max_concurrent_streams,
            max_inbound_header_list_size=max_headers_kb * 1024,
            stream_reset_rate_limit=(1 << 40, 1 << 40),
            glitch_rate_limit=(1 << 40, 1 << 40),
        ),
    )
    settings = {3: options.max_concurrent_streams, 4: options.initial_stream_window_size}
    if role is Role.CLIENT:
        settings[2] = 0
    elif options.allow_connect:
        settings[8] = 1
    made.initiate_connection(settings)
    made.set_local_window_size(options.initial_connection_window_size)
    return made
