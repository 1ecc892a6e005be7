"""Active health checks: whoever asks the hosts of clusters how they are (``Cluster.health_checks``).

The rules are in ``proxy.cluster.health`` and ``proxy.grpc.health``; what becomes of a host, in ``proxy.cluster``.
"""
