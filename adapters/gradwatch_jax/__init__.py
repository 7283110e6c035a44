"""JAX for gradwatch."""
