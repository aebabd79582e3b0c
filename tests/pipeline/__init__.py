"""Tests of bakthat.pipeline."""
