"""The API server: requests, answers and errors, in raw JSON. The CLI uses it too."""
