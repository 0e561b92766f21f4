"""What is written once over the store primitives: turns, members, discovery."""
