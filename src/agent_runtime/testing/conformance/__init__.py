"""Check that stores, brokers and batch backends conform to their contracts."""
