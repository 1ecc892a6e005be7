"""Load balancing policies: pure choices among hosts, with randomness injected."""
