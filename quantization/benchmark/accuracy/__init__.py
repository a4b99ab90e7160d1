"""What every recipe costs in accuracy, on networks trained here and on networks of others.

``python -m quantization.benchmark.accuracy`` trains what it needs (seeded, on one thread, kept in a
cache), prints the tables, and ends with 1 where a figure is below its bar.
"""
