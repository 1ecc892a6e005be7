"""A small authoritative DNS server, for the SRV records of demos, tests and small sites.

``python -m control_plane.dns --zone FILE --listen 127.0.0.1:0`` runs it from a zone file (RFC 1035 §5).
"""
