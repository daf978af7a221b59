"""The benchmarks (DESIGN.md section 10): ratios of two sides that alternate in one run. ``coalition bench`` runs them.

A folder of its own server, coalition and members is made per key and removed afterwards; nothing of the user's is read.
"""
