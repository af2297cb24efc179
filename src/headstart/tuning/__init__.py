"""Training the tail and the head, from the exact head on."""
