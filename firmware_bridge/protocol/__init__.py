"""What travels in the frames: messages in both directions, the board's schema, samples."""
