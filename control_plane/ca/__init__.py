"""The mesh's certificate authority: its keys, attestation by join token, issuing, and the HTTP face of all that."""
