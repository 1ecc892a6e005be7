"""One HTTP exchange: from a request on a downstream connection to its response, whatever happens on the way.

``downstream`` is the HTTP/1.1 server connection, ``exchange`` one request on it; ``local_reply`` is the only place
that turns an error into a response.
"""
