"""Tests of bakthat.system."""
