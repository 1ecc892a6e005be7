"""DNS discovery in the sidecar: A/AAAA and SRV clusters, refreshed as their TTLs run out.

``srv`` and ``schedule`` are pure; ``resolver`` does the queries; ``discovery`` runs one task per DNS cluster.
"""
