"""The one exception of the pod network whose text is meant for the user. It carries no stack of causes."""

from __future__ import annotations


class NetnsError(Exception):
    """Something about the pod network cannot be done; the text says what, where and what to do."""
