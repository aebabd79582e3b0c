"""Basics that know nothing of backups: text, paths, files, signals, streams, the terminal."""
