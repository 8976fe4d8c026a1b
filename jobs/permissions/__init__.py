"""Rights of jobs: permission modes, tools, directories, visibility, tokens, permission requests."""
