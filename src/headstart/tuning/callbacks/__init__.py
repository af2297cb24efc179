"""Callbacks: told of every step of a training, and able to steer it."""
