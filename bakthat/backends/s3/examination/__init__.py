"""What ``doctor`` finds out about how a bucket is set up."""
