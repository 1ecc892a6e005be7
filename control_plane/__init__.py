"""The control plane: API, store, translation to xDS, certificate authority and the ``tulle`` command."""
