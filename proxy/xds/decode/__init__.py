"""From Envoy's v3 messages to :mod:`proxy.model`: one module per part of the API, :mod:`.resources` the door.

Whatever a message sets that Tulle's sidecar does not implement is a :class:`~proxy.model.config.ConfigError`
with its field path: nothing is passed over in silence. These modules do no input or output; whether parts fit
together (a route's cluster, a chain's match) is for ``proxy.runtime.compile``.
"""
