"""How long a step takes: the native engine against the roof of the core that it runs on."""
