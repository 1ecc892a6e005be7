"""Envoy's admin endpoint, for people and scrapers on the same host. ``server`` speaks HTTP, ``pages`` answers."""
