"""What the machine gives: text, paths, files, signals, streams and the terminal."""
