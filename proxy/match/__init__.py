"""Matchers of ``proxy.model.matcher`` compiled to predicates, for routes, policies and filter chains alike.

Pure, and it knows nothing of what a match leads to.
"""
