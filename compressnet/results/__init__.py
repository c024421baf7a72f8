"""Records of what was measured, and the pages made of them."""
