"""medgan: synthetic medical images from stored scans, with numbers one can trust."""

__version__ = "0.1.0"
