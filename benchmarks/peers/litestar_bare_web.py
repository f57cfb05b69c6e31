"""The least a route of Litestar's can do: read the body and answer."""

from litestar import Litestar, Request, Response, post

from benchmarks.peers.webhook import PATH


@post(PATH, status_code=200)
async def webhook(request: Request) -> Response[bytes]:
    """Answer 200 to everything."""
    await request.body()
    return Response(b"{}", media_type="application/json")


app = Litestar([webhook])
