"""The device side: bundles, engines, the stream runtime and the command line."""
