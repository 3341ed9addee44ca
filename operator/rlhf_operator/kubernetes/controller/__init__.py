"""Who acts: workers take runs from the queue, rounds decide, the backend writes, the Lease says who may."""
