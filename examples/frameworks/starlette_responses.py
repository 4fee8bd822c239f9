"""A Starlette application whose responses are cached: `python examples/frameworks/starlette_responses.py`."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ratelimit_service.integrations.asgi_responses import ResponseCacheMiddleware, response_cache

PRICES = {"apple": 42}


async def price(request: Request) -> Response:
    """A slow page: it says for how long it may be kept, and that it differs by currency."""
    name = request.path_params["name"]
    if request.method == "PUT":
        PRICES[name] = int(await request.body())
        return Response(status_code=204)
    print("the application is asked")
    await asyncio.sleep(0.1)
    headers = {"cache-control": "max-age=60", "vary": "x-currency"}
    return JSONResponse({"price": PRICES[name], "currency": request.headers.get("x-currency", "EUR")}, headers=headers)


app = Starlette(
    routes=[Route("/prices/{name}", price, methods=["GET", "PUT"])],
    middleware=[Middleware(ResponseCacheMiddleware, cache=response_cache("api-responses"))],
)


async def main() -> None:
    """Ask as clients would; `uvicorn starlette_responses:app` serves the same."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as client:
        first, second = await asyncio.gather(client.get("/prices/apple"), client.get("/prices/apple"))
        print(first.text, "and", second.text)
        again = await client.get("/prices/apple", headers={"if-none-match": first.headers["etag"]})
        print(again.status_code, again.headers["cache-status"])
        print((await client.get("/prices/apple", headers={"x-currency": "CHF"})).text)
        await client.put("/prices/apple", content=b"43")
        print((await client.get("/prices/apple")).text)


if __name__ == "__main__":
    asyncio.run(main())
