"""A data set on disk: FFCV's file format, the JSON sidecar next to the file, the names of its shards."""
