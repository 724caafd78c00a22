"""What is asked and answered: the routes of the Hub's protocol."""
