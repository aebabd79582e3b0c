"""Tests of bakthat.archive."""
