"""The sidecar: an xDS-native proxy. ``docs/life-of-a-request.md`` walks through its modules."""
