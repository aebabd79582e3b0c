"""What the storages of AWS share: the client, uploads in parts, ranged reads."""
