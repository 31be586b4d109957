"""Events and labels of the training-set task, by a seed.

events: user_id (200,000 users, by Zipf's law), ts (60 days, microseconds), amount (double, a tenth NULL), quantity (int),
flag (bool). labels: label_id, user_id, at. Usage: generate.py FOLDER EVENTS LABELS
"""
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS = 200_000
START = 1_704_067_200_000_000  # 2024-01-01
DAY = 86_400_000_000


def users(random, n):
    """Zipf's law with exponent 1: the first user has 8 % of the rows, the first 1 % of the users have 64 %."""
    weights = 1 / np.arange(1, USERS + 1)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(n)).astype(np.int64)


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
    os.makedirs(f"{folder}/days", exist_ok=True)
    ts = table["ts"].cast(pa.int64()).to_numpy()
    for day in range(60):
        low, high = np.searchsorted(ts, [START + day * DAY, START + (day + 1) * DAY])
        pq.write_table(table.slice(low, high - low), f"{folder}/days/{day:02}.parquet")
    table = pa.table({
        "label_id": np.arange(labels),
        "user_id": users(random, labels),
        "at": pa.array(START + random.integers(0, 60 * DAY, labels), pa.timestamp("us")),
    })
    pq.write_table(table, f"{folder}/labels.parquet", row_group_size=1_000_000)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
