"""Virtual hosts, route matching, path normalisation and header edits, compiled from ``proxy.model.route``."""
