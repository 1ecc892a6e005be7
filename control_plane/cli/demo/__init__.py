"""``tulle demo``: a whole mesh in namespaces of its own, telling what it does. ``story`` has the chapters."""
