"""Engines: whatever can run a step graph on this machine."""
