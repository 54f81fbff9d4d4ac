"""Exchange types: which destinations an exchange's bindings name for a message. Pure, one type a file."""
