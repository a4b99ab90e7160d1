"""Evidence that anybody can print again: tables with their conditions, one command each."""
