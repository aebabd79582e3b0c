"""Where the indexes of backups are: beside their archives, and in the cache of this machine."""
