"""HTTP/2 (RFC 9113): the codec contract and its engines, the judge of inbound frames, and what heads become."""
