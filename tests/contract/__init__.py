"""What happens on the wire, with both clients."""
