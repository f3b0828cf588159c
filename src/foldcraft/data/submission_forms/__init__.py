"""Forms of submissions: what the host's sample, target and metric say of them, and answers written in them."""
