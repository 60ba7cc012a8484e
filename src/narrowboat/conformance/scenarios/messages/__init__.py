"""What a message half owes."""
