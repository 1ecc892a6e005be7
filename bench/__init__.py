"""Benchmarks: Tulle's sidecar against Envoy, the same configuration for both, in the same run."""
