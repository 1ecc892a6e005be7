"""A pair of sidecars under everything at once: what they hold must be back at the start when it is over."""
