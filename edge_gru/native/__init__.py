"""The C kernels of the native engine (``src``) and their extension module, ``_native``."""
