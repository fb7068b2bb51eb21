"""What the GPU kernels are as machine code: ``python -m benchmarks.gpu_static`` writes docs/gpu_static.md.

Triton compiles ahead of time and needs no GPU; the tables hold static facts, not timings. `machine` compiles and
counts, one file per family of kernels holds its cases (`steps`: normal, add_noise, solver_step; `bodies`: CUDA C++),
`report` writes the page.
"""
