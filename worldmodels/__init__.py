"""World models: V, M and C, and what joins them. Import the module you need."""
