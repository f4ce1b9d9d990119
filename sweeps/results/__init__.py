"""Results on disk, and the statistics made of them."""
