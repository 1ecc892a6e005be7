"""Upstream clusters: hosts, priorities, load balancing and circuit breakers.

No sockets here: pools and connections are ``proxy.upstream``.
"""
