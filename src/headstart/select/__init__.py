"""Choosing: image geometry, features, head, class weights, each by cross-validation within train."""
