"""What a lock half owes."""
