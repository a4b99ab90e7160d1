"""The C kernels of the native engine (``src``), through their extension module.

Importing it fails where the extension was not built.
"""

from edge_gru.native._native import KERNELS, OPERATIONS, Network

__all__ = ["KERNELS", "OPERATIONS", "Network"]
