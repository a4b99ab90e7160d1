"""TensorRT on the board it is built on: plans in a cache, states in device memory, CUDA graphs."""

INSTALL = (
    "on a Jetson: sudo apt install python3-libnvinfer, then make the environment with "
    "/usr/bin/python3 -m venv --system-site-packages .venv (never pip: its builds are for other "
    "boards); on an x86-64 PC: pip install 'edge-gru[tensorrt]'"
)
