"""The revisioned, watchable store. ``base`` is the interface; ``sqlite`` the embedded implementation."""
