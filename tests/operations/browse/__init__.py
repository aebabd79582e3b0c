"""Tests of bakthat.operations.browse."""
