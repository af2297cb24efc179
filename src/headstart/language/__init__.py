"""Language models that write: a corpus, the loss of its tokens, what is kept of tuning, and the words that come of it."""
