"""Items become network input; what cannot be read is refused by name."""
