"""HTTP/2 (RFC 9113): the codec and what heads become in it. No connections, no input or output."""
