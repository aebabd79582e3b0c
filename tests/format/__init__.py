"""Tests of bakthat.format."""
