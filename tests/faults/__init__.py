"""What breaks: KMS regions, databases, processes; and what must hold nevertheless."""
