"""Connections that are relayed as they are: ``relay`` passes bytes, ``session`` is what the access log reads."""
