"""What a person types: one file a command. Nothing here imports torch at module level."""
