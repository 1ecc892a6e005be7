"""The registry: which services, workloads and endpoints there are, as one immutable view per revision."""
