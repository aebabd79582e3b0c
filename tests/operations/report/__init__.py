"""Tests of bakthat.operations.report."""
