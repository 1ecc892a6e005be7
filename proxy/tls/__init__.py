"""TLS on both sides: connections, contexts, secrets, peers' verification, and the workload's own identity."""
