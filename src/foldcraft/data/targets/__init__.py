"""What is predicted: one object knows, nobody else asks of what kind it is."""
