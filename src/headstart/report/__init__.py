"""The report: one self-contained page, and the card of the saved model."""
