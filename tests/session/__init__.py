"""Tests of bakthat.session."""
