"""Where images come from: rendered benchmarks, data of your own, CUHK03-NP from its original file.

The module check checks any of them. A rendered benchmark is planned in the module shots, drawn in
pedestrians and scenes, and written in rendered.
"""
