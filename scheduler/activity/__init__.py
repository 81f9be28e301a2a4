"""What people did, and what happened to accounts and tasks: written beside each change, read by whom it concerns."""
