"""The paper's two analyses: what the policy says while it reasons, and where it looks."""
