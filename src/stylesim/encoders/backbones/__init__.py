"""Networks that encoders are built on, without published weights."""
