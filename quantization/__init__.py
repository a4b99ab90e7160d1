"""The build host: import, calibrate, quantize, evaluate and pack trained recurrent networks."""

from quantization.pipeline import quantize

__all__ = ["quantize"]
