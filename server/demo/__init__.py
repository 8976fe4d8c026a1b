"""The demo: the real `claude` without an account, against a scripted Messages API that plays a story."""
