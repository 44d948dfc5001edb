"""Documents to batches: token shards, mixture, packing, masking."""
