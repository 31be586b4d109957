"""TPC-H's 22 queries, scale 1: `featurectl run` beside DataFusion (its Python package, the same version) and DuckDB.

Usage: python3 tpch.py FEATURECTL [--rounds N]
Needs the virtual environment of run.py, adds tpchgen-cli and datafusion to it, and makes the data by tpchgen. Two threads
each. A query of featurectl is a process of its own, whose start and check count; the peers' queries are timed inside of
one warm process. Then each engine runs all 22 once in a process of its own. First the results are compared, floats to
1e-9. Prints medians.
"""
import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import time

from run import CACHE, HERE, PYTHON, prepare

TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
PEER = """
import csv, sys, time
engine, rounds = sys.argv[1], int(sys.argv[2])
queries = open("queries.txt").read().split("\\0")
if engine == "duckdb":
    import duckdb
    c = duckdb.connect(); c.execute("SET threads = 2")
    for t in {tables}: c.execute(f"CREATE VIEW {{t}} AS SELECT * FROM '{{t}}.parquet'")
    run = lambda q: c.execute(q).fetchall()
else:
    from datafusion import SessionConfig, SessionContext
    c = SessionContext(SessionConfig().with_target_partitions(2).set("datafusion.execution.parquet.pushdown_filters", "{pushdown}"))
    for t in {tables}: c.register_parquet(t, f"{{t}}.parquet")
    run = lambda q: [tuple(r.values()) for b in c.sql(q).collect() for r in b.to_pylist()]
for number, query in enumerate(queries, 1):
    run(query)
    if not rounds: continue
    for _ in range(rounds):
        began = time.time(); rows = run(query); print(number, time.time() - began)
    with open(f"{{engine}}_{{number}}.csv", "w") as f:
        csv.writer(f).writerows(["" if v is None else v for v in row] for row in rows)
"""


def same(a, b):
    """Two CSV files row by row; numbers to 1e-9 of their size."""
    def equal(x, y):
        try:
            return abs(float(x) - float(y)) <= 1e-9 * abs(float(y)) + 1e-9
        except ValueError:
            return x == y or x.replace("T00:00:00", "") == y
    return len(a) == len(b) and all(len(x) == len(y) and all(map(equal, x, y)) for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("featurectl")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    binary = os.path.abspath(args.featurectl)
    prepare(argparse.Namespace(events=1000, labels=100, spark=False))
    subprocess.check_call([PYTHON, "-m", "pip", "install", "--quiet", "tpchgen-cli", "datafusion"])
    folder = f"{CACHE}/tpch"
    if not os.path.exists(f"{folder}/supplier.parquet"):
        os.makedirs(folder, exist_ok=True)
        subprocess.check_call([f"{CACHE}/venv/bin/tpchgen-cli", "parquet", "-s", "1", "--output-dir", folder])
    queries = [q.strip() for q in re.split(r"^-- \d+$", open(f"{HERE}/tpch.sql").read(), flags=re.M)[1:]]
    open(f"{folder}/queries.txt", "w").write("\0".join(queries))
    open(f"{folder}/two.toml", "w").write("[profile.default]\nthreads = 2\n")
    seconds = {"featurectl": {}, "datafusion": {}, "datafusion pushdown": {}, "duckdb": {}}
    for engine, pushdown in (("duckdb", ""), ("datafusion", "false"), ("datafusion pushdown", "true")):
        script = PEER.format(tables=TABLES, pushdown=pushdown)
        command = [PYTHON, "-c", script, engine.split()[0], str(args.rounds)]
        for line in subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines():
            number, value = line.split()
            seconds[engine].setdefault(int(number), []).append(float(value))
    tables = "".join(f"CREATE EXTERNAL TABLE {t} STORED AS PARQUET LOCATION '{t}.parquet';\n" for t in TABLES)
    for number, query in enumerate(queries, 1):
        used = [t for t in tables.splitlines() if t.split()[3] in query]
        open(f"{folder}/q.sql", "w").write("\n".join(used) + "\n" + query + ";\n")
        for turn in range(args.rounds + 1):
            began = time.time()
            out = subprocess.run([binary, "run", "q.sql", "-o", "csv", "--config", "two.toml"], cwd=folder, capture_output=True, text=True)
            if out.returncode:
                sys.exit(f"query {number}: {out.stderr}")
            if turn:
                seconds["featurectl"].setdefault(number, []).append(time.time() - began)
        mine = list(csv.reader(out.stdout.splitlines()))[1:]
        theirs = list(csv.reader(open(f"{folder}/datafusion_{number}.csv")))
        print(f"{number:>2}", "equal" if same(mine, theirs) else f"DIFFER: {mine[:1]} {theirs[:1]}")
    names = list(seconds)
    print(f"{'':>5}" + "".join(f"{n:>21}" for n in names))
    medians = {n: {q: statistics.median(v) for q, v in seconds[n].items()} for n in names}
    for number in range(1, 23):
        print(f"{number:>5}" + "".join(f"{medians[n][number]:>21.3f}" for n in names))
    print("  sum" + "".join(f"{sum(medians[n].values()):>21.3f}" for n in names))
    open(f"{folder}/all.sql", "w").write(tables + "".join(f"{q};\n" for q in queries))
    whole = {n: [] for n in names}
    for turn in range(args.rounds):
        for name in names:
            command = [PYTHON, "-c", PEER.format(tables=TABLES, pushdown=str(name.endswith("pushdown")).lower()), name.split()[0], "0"]
            if name == "featurectl":
                command = [binary, "run", "all.sql", "-o", "csv", "--config", "two.toml"]
            began = time.time()
            subprocess.run(command, cwd=folder, capture_output=True, check=True)
            whole[name].append(time.time() - began)
    print("  all" + "".join(f"{statistics.median(whole[n]):>21.3f}" for n in names))


if __name__ == "__main__":
    main()
