"""The job feed: what screens that stay open are told of all jobs. It knows nothing of sockets."""
