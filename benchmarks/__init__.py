"""Programs that measure and check; what they share is a folder beside them."""
