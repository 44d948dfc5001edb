"""Documents to batches: token shards, mixture, packing, masking; and the files of the tasks."""
