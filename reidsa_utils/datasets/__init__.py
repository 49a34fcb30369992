"""Where images come from: rendered benchmarks, data of one's own, CUHK03-NP from its original file.

Any of them can be checked. The rendered benchmarks are planned in shots, drawn in pedestrians and
scenes, and written in rendered.
"""
