"""Where images come from: the rendered benchmarks, CUHK03-NP from its original file, and the check of a copy on disk."""
