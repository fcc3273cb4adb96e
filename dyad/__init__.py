"""What a conversation is and how it is measured: the small kernel that every stage shares. No torch in here."""
