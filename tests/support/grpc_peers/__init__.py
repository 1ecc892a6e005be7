"""gRPC clients and servers of two implementations that do the same: ``peer.py`` (grpcio), ``peer.js`` (grpc-js).

``server PORT`` serves and says its port; it ends gracefully with SIGTERM. ``client PORT SCENARIO...`` writes one line
of JSON, name and result, for each scenario; ``loop`` calls until its standard input ends. Messages are bytes; no code
is generated.
"""
