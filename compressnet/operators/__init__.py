"""Classical image operators: the training targets of fast image processing."""
