"""The archive stream: a tree becomes tar, tar becomes gzip members, and back again."""
