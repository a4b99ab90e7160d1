"""Verbs of the build host, found by ``edge-gru`` through their entry points."""
