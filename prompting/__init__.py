"""What methods are made of: prompt learners, contexts, meta networks, heads, stored features."""
