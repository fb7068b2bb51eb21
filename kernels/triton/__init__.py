"""Triton kernels of the ops, one file per op; nothing is imported before a call needs it."""
