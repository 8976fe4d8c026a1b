"""How a client reaches the engine: state directory, socket, handshake, proxy. Standard library only: it loads fast."""
