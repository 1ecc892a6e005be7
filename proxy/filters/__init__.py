"""Filters: each configuration is compiled once to a closure that returns ``None`` (go on) or a reply."""
