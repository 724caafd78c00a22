"""A self-hosted registry server that speaks the Hugging Face Hub's protocol."""
