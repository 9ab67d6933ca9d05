"""What people write by hand: the rows of `articles` through the API into the table `by_hand`.

It is one of the careful ones: a primary key, an upsert, a transaction for each batch, another try
after a 429, and after a kill it goes on with the rows that have no vector yet.
"""

import os
import time

import httpx
import psycopg

ROWS = """
SELECT id, body FROM articles
WHERE NOT EXISTS (SELECT 1 FROM by_hand WHERE by_hand.id = articles.id)
ORDER BY id LIMIT 100
"""
UPSERT = """
INSERT INTO by_hand (id, embedding) VALUES (%s, %s::vector)
ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding
"""


def embed(client: httpx.Client, texts: list[str]) -> list[list[float]]:
    while True:
        answer = client.post("/v1/embed/batch", json={"texts": texts})
        if answer.status_code == 429:
            time.sleep(float(answer.headers.get("retry-after", "5")))
            continue
        answer.raise_for_status()
        vectors: list[list[float]] = answer.json()["embeddings"]
        return vectors


def main() -> None:
    key = {"Authorization": f"Bearer {os.environ['VECTOR_EMBED_API_KEY']}"}
    with (
        psycopg.connect(os.environ["VECTOR_EMBED_DATABASE_URL"]) as database,
        httpx.Client(
            base_url=os.environ["VECTOR_EMBED_BASE_URL"], headers=key, timeout=60
        ) as client,
    ):
        database.execute(
            "CREATE TABLE IF NOT EXISTS by_hand (id text PRIMARY KEY, embedding vector)"
        )
        while rows := database.execute(ROWS).fetchall():
            vectors = embed(client, [text for _, text in rows])
            with database.cursor() as cursor:
                cursor.executemany(UPSERT, [(id, str(one)) for (id, _), one in zip(rows, vectors)])
            database.commit()


if __name__ == "__main__":
    main()
