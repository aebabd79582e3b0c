"""Tests of bakthat.operations.status."""
