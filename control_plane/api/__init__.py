"""The REST API: kinds, admission, resources, watches. ``server`` puts them together."""
