"""Pure decisions: rotation, intervals, storage classes and the defaults of settings."""
