"""HTTP requests that the service sends for people: never to what is private, never without limits."""
