"""The click commands: the only place where rooms meet. Each is thin: parse, call a room, print JSON."""
