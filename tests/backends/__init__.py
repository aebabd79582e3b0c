"""Tests of bakthat.backends."""
