import asyncio
import aiohttp

async def fetch_all(urls, limit=10):
    semaphore = asyncio.Semaphore(limit)

    async def fetch(session, url):
        async with semaphore, session.get(url) as response:
            response.raise_for_status()
            return await response.text()

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*(fetch(session, url) for url in urls))

if __name__ == "__main__":
    asyncio.run(fetch_all(["https://example.com"]))
