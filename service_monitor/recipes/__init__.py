"""What is done with the store's primitives, written once for all stores."""
