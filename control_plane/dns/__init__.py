"""A small authoritative DNS server. ``zone`` answers questions (pure); ``server`` speaks UDP and TCP."""
