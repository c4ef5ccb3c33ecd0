"""The HTTP service: an index, asked and changed by many at once. It takes the extra `serve`."""
