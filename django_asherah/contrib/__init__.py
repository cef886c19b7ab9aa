"""For packages that go by the class or the internal type of a field: a function each that tells them the kinds."""
