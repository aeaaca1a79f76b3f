"""Training from photos, and its measurement."""
