"""Text messages: the gateway that sends them."""
