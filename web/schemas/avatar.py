"""Pictures of people, as clients ask for them."""

from typing import Annotated

from pydantic import Field

from web.schemas.fields import Line, Query


class AvatarQuery(Query):
    """Which picture: an address is another with each."""

    v: Annotated[
        Annotated[str, Line(0, 64)] | None, Field(description="As it stands in `avatar_url`: may be kept for good")
    ] = None
