"""The contract's endpoints, by subject."""
