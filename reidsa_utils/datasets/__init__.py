"""Where images come from: rendered benchmarks, CUHK03-NP from its original file, a checked copy.

The rendered benchmarks are planned in shots, drawn in pedestrians and scenes, and written in
rendered.
"""
