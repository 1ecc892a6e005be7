"""ADS sessions, state-of-the-world and delta, as pure state machines (skeleton)."""
