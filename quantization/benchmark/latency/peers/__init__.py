"""What a step costs elsewhere: a file a library, the only one that imports it."""
