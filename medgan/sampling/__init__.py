"""Trained generator in, images out."""
