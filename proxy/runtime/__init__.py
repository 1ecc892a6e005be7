"""The compiled form of a configuration and the one place that swaps it (``hub``)."""
