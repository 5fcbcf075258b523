"""What models write: prompts, answers collected or generated, the responses table."""
