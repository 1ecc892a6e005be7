"""The sidecar as an xDS client: ``session`` is pure, ``client`` speaks gRPC, ``cache`` survives restarts."""
