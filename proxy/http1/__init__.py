"""HTTP/1.1 syntax: heads, chunked framing, what may be cut out of a head. It decides nothing and does no IO."""
