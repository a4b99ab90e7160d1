"""Someone's trained model to a step model, proven equal on whole sequences."""
