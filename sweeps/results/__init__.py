"""Results on disk, and the statistics computed from them."""
