"""Photo files, independent of any model: find them, name them, decode them."""
