"""Identity: SPIFFE IDs, keys, CSRs, the certificate authority's templates and signing, bundles, schedules."""
