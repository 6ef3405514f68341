"""A trained agent as a folder that a robot can check and run: safetensors and JSON, nothing else is read."""
