"""What an operation works with: profile, backends, catalog, lookup, cold storage."""
