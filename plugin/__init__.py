"""The command line on a platform: XNAT, Docker."""
