"""The build host: import, calibrate, quantize, evaluate and pack trained recurrent networks."""
