"""Whether anything waits in a queue on Redis or RabbitMQ, or is not acknowledged there."""

from collections.abc import Sequence

import pika
import redis


class Waiting:
    """Looks at the queue of one measurement.

    Args:
        queue: its name on RabbitMQ. What is delivered and not acknowledged is not seen there: the
            benchmark asks once all handlers have ended.
        keys: lists and hashes on Redis that are empty when nothing is left.
    """

    def __init__(self, url: str, *, queue: str, keys: Sequence[str]) -> None:
        self._queue = queue
        self._keys = keys
        self._redis = redis.Redis.from_url(url) if url.startswith("redis") else None
        self._rabbitmq = None if self._redis else pika.BlockingConnection(pika.URLParameters(url))

    def is_empty(self) -> bool:
        """Whether nothing is left."""
        if self._redis is not None:
            # A list or hash that becomes empty is removed.
            return not self._redis.exists(*self._keys)
        assert self._rabbitmq is not None
        channel = self._rabbitmq.channel()
        declared = channel.queue_declare(self._queue, passive=True)
        channel.close()
        return declared.method.message_count == 0

    def close(self) -> None:
        """Close the connection."""
        for connection in (self._redis, self._rabbitmq):
            if connection is not None:
                connection.close()
