"""A chat model as a labeler: what it is asked, the endpoint that is asked, what its answers mean."""
