"""Architectures drawn to scale."""
