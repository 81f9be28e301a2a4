"""Chaos: the whole service under load while its processes, servers and connections die at random; nothing may be lost.

    python -m tests.chaos --seed 7 --seconds 60      one round (`make chaos ARGS=…`)
    python -m tests.chaos --seeds 10                 ten, one after the other

Real workers, MariaDB, Redis and a mail server of the round's own. What is done to them follows from the seed; when
exactly it hits them does not, as they are real. Read in this order: `plan` (how much of what), `load` and `producer`
(what is asked for), `torment` (what is done to processes and servers), `client_faults` and `worker` (what is done to
their database connections), `verdict` and `records` (what must be true at the end), `round` (one after the other).

When something is violated, everything is kept in a folder that the last line names: what each process logged, what was
done when (`torment.log`, `client-faults.jsonl`), and the rows and messages as they were at the end (`*.rows`).
"""
