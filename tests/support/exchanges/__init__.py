"""Tables of raw exchanges, by subject; ``differences`` names those of which the outcome differs on purpose."""
