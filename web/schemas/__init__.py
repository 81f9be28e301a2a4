"""What clients send (pydantic models, strict) and what they get (typed dictionaries, for the document and
for mypy).

Answers are not run through pydantic: a handler builds the dictionary that its TypedDict describes and orjson
writes it once.
These modules do without `from __future__ import annotations`: pydantic reads the annotations.
"""
