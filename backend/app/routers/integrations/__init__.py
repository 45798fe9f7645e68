"""Routes for integrations: streams and sockets."""
