"""A forked worker process, its messages, and the memory that it shares with this process."""
