"""The order of training samples: a plan, a stream that follows it, and where a resumed run continues."""
