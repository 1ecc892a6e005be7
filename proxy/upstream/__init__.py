"""Connections to upstream hosts: the pool, one HTTP/1.1 connection, and what may be tried again.

``retry`` is pure; ``connect`` opens sockets; ``pool`` joins requests and connections.
"""
