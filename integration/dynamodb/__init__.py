"""DynamoDB as the store, here moto's server: the contract, and what only it has."""
