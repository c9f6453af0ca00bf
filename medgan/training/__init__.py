"""Dataset in, trained generator out."""
