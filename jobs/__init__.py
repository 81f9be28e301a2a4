"""The queue's door: what arq calls, one file a job, and the worker."""
