"""Tables of HTTP/2 cases, by subject."""
