"""Pure decisions: rotation, intervals, and what storage classes charge for."""
