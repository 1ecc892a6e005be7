"""Listening sockets and what happens to a connection before it has an application.

``worker`` composes the data path of one event loop; ``listeners`` follows the configuration; ``accepted`` leads one
connection through original destination, TLS inspection, filter chain and handshake.
"""
