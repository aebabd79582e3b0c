"""Tests of bakthat.policy."""
