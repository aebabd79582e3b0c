"""Jobs: what runs several operations, and when."""
