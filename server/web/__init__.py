"""The web page of an engine: its requests on loopback, who may make them, and what they answer."""
