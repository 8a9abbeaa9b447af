#!/usr/bin/env python3
"""Lists all content repositories of all hubs, with httpx.

    pip install amp-token httpx
    AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./walk_repositories.py

Lists the hubs one page after the other, and the repositories of all hubs concurrently. The adapter adds a
valid token to each request, refreshes it without blocking the event loop, and replaces one that the API
rejects. Prints a line for each repository: hub, id, label, separated by tabs. Exit status: 0, or 1 with the
reason on standard error.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, AsyncIterator, Dict, List

import httpx

import amp_token
import amp_token.httpx


async def items(client: httpx.AsyncClient, link: str, name: str) -> AsyncIterator[Dict[str, Any]]:
    """Iterates over the items of a HAL collection, through all its pages."""
    # Links of the API end with a URI template, {?page,size,sort}. This function sends its variables itself.
    url = link.partition("{?")[0]
    number, total = 0, 1
    while number < total:
        response = await client.get(url, params={"page": number, "size": 20})
        response.raise_for_status()
        page = response.json()
        for item in page["_embedded"][name]:
            yield item
        number, total = number + 1, page["page"]["totalPages"]


async def lines(client: httpx.AsyncClient, hub: Dict[str, Any]) -> List[str]:
    """Returns a line for each repository of a hub."""
    link = hub["_links"]["content-repositories"]["href"]
    repositories = items(client, link, "content-repositories")
    return [f"{hub['name']}\t{repository['id']}\t{repository['label']}" async for repository in repositories]


async def main() -> int:
    try:
        with amp_token.TokenCache() as cache:
            auth = amp_token.httpx.AmpAuth(cache)
            async with httpx.AsyncClient(auth=auth, base_url=cache.api_url, timeout=30) as client:
                hubs = [hub async for hub in items(client, "/v2/content/hubs", "hubs")]
                for hub_lines in await asyncio.gather(*(lines(client, hub) for hub in hubs)):
                    print("\n".join(hub_lines))
        return 0
    except (amp_token.AmpError, httpx.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
