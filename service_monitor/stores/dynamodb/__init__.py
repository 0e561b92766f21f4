"""Amazon DynamoDB as the store."""
