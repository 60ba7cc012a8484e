"""A shop that sells a limited stock, ships what it sold and tells others of it: FastAPI, a worker and one table file."""
