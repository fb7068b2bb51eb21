"""How many kernels a sampling step launches, and how many bytes they move: ``python -m benchmarks.launches``.

Counted on tensors that only pretend to lie on a GPU, so on any machine; nothing is timed. `count` says which operation
launches what, `ways` runs a step in eager torch, by inductor and by fastdiff, `page` writes docs/gpu_launches.md.
"""
