"""Labelled data: reading it, finding what is wrong with it, splitting it."""
