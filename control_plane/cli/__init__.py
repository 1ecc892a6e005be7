"""The ``tulle`` command. ``main`` finds the subcommands; each has a module."""
