"""Make the archive of an increment: what differs between the tree and an earlier backup's state."""
