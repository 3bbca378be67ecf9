"""lora: a frozen network with trainable adapters."""
