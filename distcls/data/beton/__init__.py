"""A data set on disk: FFCV's file, the sidecar beside it, the names of its shards."""
