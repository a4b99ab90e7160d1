"""How fast a step is: our engines beside the peers that are installed, in interleaved rounds."""
