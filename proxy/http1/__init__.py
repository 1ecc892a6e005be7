"""HTTP/1.1 syntax: heads, chunked framing and what may be cut out of a head. It decides nothing and does no input or output."""
