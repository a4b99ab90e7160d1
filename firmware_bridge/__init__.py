"""The wire between a sensor board and its host: bytes in, samples and events out."""
