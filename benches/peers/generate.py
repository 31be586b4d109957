"""Events and labels of the training-set task, by a seed.

events: user_id (200,000 users, Zipf-like), ts (60 days, microseconds), amount (double, a tenth NULL), quantity (int),
flag (bool). labels: label_id, user_id, at. Usage: generate.py FOLDER EVENTS LABELS
"""
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS = 200_000
START = 1_704_067_200_000_000  # 2024-01-01
DAY = 86_400_000_000


def users(random, n):
    """The square of a uniform number: the first 1 % of the users has a tenth of the rows."""
    return (random.random(n) ** 2 * USERS).astype(np.int64)


def main(folder, events, labels):
    random = np.random.default_rng(1)
    amount = np.round(random.gamma(2.0, 30.0, events), 2)
    table = pa.table({
        "user_id": users(random, events),
        "ts": pa.array(np.sort(START + random.integers(0, 60 * DAY, events)), pa.timestamp("us")),
        "amount": pa.array(amount, mask=random.random(events) < 0.1),
        "quantity": pa.array(random.integers(1, 20, events), pa.int32()),
        "flag": random.random(events) < 0.3,
    })
    pq.write_table(table, f"{folder}/events.parquet", row_group_size=1_000_000)
    table = pa.table({
        "label_id": np.arange(labels),
        "user_id": users(random, labels),
        "at": pa.array(START + random.integers(0, 60 * DAY, labels), pa.timestamp("us")),
    })
    pq.write_table(table, f"{folder}/labels.parquet", row_group_size=1_000_000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
