"""What gRPC says over HTTP, read as Envoy reads it: content types, ``grpc-status``, ``grpc-timeout``, messages.

Pure; it knows nothing of streams, and no call is made here.
"""
