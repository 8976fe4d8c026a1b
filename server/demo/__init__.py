"""A scripted Messages API and the story that it tells, so that the real `claude` runs without an account."""
