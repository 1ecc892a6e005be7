"""From a view of the store and a node to that node's Envoy v3 resources. Pure: the same in gives the same out.

:func:`~control_plane.translate.builder.translate` is the whole of it; a
:class:`~control_plane.translate.builder.Builder` does the same and keeps what nodes share.
"""
