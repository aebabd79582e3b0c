"""The parts of an operation: profile, backends, catalog, lookup, cold storage."""
