"""Extract an archive into a directory, all of it or nothing."""
