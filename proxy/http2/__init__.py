"""HTTP/2: the codec contract and its two engines, and the judge of inbound frames."""
