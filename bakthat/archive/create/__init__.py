"""Create an archive: walk a tree and write it as tar."""
