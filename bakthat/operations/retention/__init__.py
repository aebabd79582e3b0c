"""Delete by rule: by age, or what a rotation does not keep."""
