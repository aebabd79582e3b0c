"""The backend for a local directory."""
