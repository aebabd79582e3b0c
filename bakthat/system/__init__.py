"""What the machine gives: text, paths, files, signals, streams, the terminal, Linux."""
