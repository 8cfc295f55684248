"""Checks of local backends: whether one takes connections, before connections are sent to it."""
