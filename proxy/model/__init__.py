"""The sidecar's configuration as frozen data: the subset of Envoy's v3 API that Tulle implements.

Field names are Envoy's. Durations are seconds as ``float``, sizes are bytes, ``None`` means "not set".
These modules hold data only: no parsing (``proxy.xds.decode``), no compiled form (``proxy.runtime``).
"""
