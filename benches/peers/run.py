"""The training-set task and the plain as-of join: featurectl beside DuckDB, Polars and PySpark.

Usage: python3 run.py FEATURECTL [--events N] [--labels N] [--rounds N] [--peer-rounds N] [--only NAME,...] [--spark]
Makes its own virtual environment and data below ~/.cache/featurectl-peers, runs every engine as a process of its own on
two threads, Parquet in and Parquet out. In each round all take turns; of two runs in a row, the second counts. Compares the
results row by row, prints a table of medians and draws training.svg. PySpark is so much slower that it runs only with --spark, on fewer rows.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.expanduser("~/.cache/featurectl-peers")
PYTHON = f"{CACHE}/venv/bin/python"
WINDOWS = {"1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days"}
NAMES = ["n", "sum", "avg", "min", "max"]


def prepare(args):
    if not os.path.exists(PYTHON):
        subprocess.check_call([sys.executable, "-m", "venv", f"{CACHE}/venv"])
        packages = ["duckdb", "polars", "pyarrow", "numpy"] + (["pyspark"] if args.spark else [])
        subprocess.check_call([PYTHON, "-m", "pip", "install", "--quiet", *packages])
    folder = f"{CACHE}/{args.events}-{args.labels}"
    if not os.path.exists(f"{folder}/labels.parquet"):
        os.makedirs(folder, exist_ok=True)
        subprocess.check_call([PYTHON, f"{HERE}/generate.py", folder, str(args.events), str(args.labels)])
    return folder


def job(name, memory=None):
    """The task in featurectl's SQL."""
    tables = "".join(f"CREATE EXTERNAL TABLE {t} STORED AS PARQUET LOCATION '{t}.parquet';\n" for t in ("events", "labels"))
    if name == "asof":
        query = ("SELECT l.label_id, e.amount, e.quantity FROM labels l "
                 "ASOF JOIN latest e MATCH_CONDITION (l.at >= e.ts) ON l.user_id = e.user_id")
        tables += ("CREATE FEATURE VIEW latest ENTITY (user_id) EVENT TIME ts AS SELECT amount, quantity FROM events;\n")
        return f"{tables}COPY ({query}) TO 'out_{name}' STORED AS PARQUET;\n"
    with_ = {"sawtooth": "WITH (resolution = 'auto')"}.get(name, "WITH (resolution = 'exact')")
    calls = ["count(amount)", "sum(amount)", "avg(amount)", "min(amount)", "max(amount)"]
    windows = dict(WINDOWS)
    names = NAMES
    if name == "hundred":
        windows["14d"] = "14 days"
        calls += ["sum(quantity)", "avg(quantity)", "min(quantity)", "max(quantity)", "stddev(amount)", "count(*)",
                  "count(*) FILTER (WHERE flag)", "sum(amount) FILTER (WHERE flag)", "avg(amount) FILTER (WHERE flag)",
                  "min(amount) FILTER (WHERE flag)", "max(amount) FILTER (WHERE flag)", "sum(quantity) FILTER (WHERE flag)",
                  "first_value(amount)", "last_value(amount)", "last_value(quantity)"]
        names = NAMES + [f"f{i}" for i in range(len(calls) - 5)]
    features = ", ".join(f"{c} OVER w{w} AS {n}_{w}" for w in windows for c, n in zip(calls, names))
    over = ", ".join(f"w{w} AS (RANGE INTERVAL '{length}' PRECEDING)" for w, length in windows.items())
    return (f"{tables}CREATE FEATURE VIEW f ENTITY (user_id) EVENT TIME ts {with_} AS SELECT {features} FROM events WINDOW {over};\n"
            f"COPY (SELECT l.label_id, f.* FROM labels l ASOF JOIN f MATCH_CONDITION (l.at > f.ts) ON l.user_id = f.user_id)"
            f" TO 'out_{name}' STORED AS PARQUET;\n")


DUCKDB_TRAINING = """
import duckdb
c = duckdb.connect(); c.execute("SET threads = 2")
windows = {windows!r}
calls = ", ".join(f"{{f}}(amount) OVER w{{w}} AS {{n}}_{{w}}" for w in windows for f, n in
                  (("count", "n"), ("sum", "sum"), ("avg", "avg"), ("min", "min"), ("max", "max")))
over = ", ".join(f"w{{w}} AS (PARTITION BY user_id ORDER BY ts RANGE BETWEEN INTERVAL '{{l}}' PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)"
                 for w, l in windows.items())
c.execute(f'''COPY (SELECT * EXCLUDE (is_label) FROM (SELECT label_id, is_label, {{calls}} FROM (
  SELECT user_id, ts, amount, NULL::BIGINT AS label_id, false AS is_label FROM 'events.parquet'
  UNION ALL SELECT user_id, "at", NULL, label_id, true FROM 'labels.parquet') WINDOW {{over}}) WHERE is_label)
  TO 'duckdb_{task}.parquet' (FORMAT parquet)''')
"""
DUCKDB_ASOF = """
import duckdb
c = duckdb.connect(); c.execute("SET threads = 2")
c.execute('''COPY (SELECT l.label_id, e.amount, e.quantity FROM 'labels.parquet' l ASOF LEFT JOIN 'events.parquet' e
  ON l.user_id = e.user_id AND l."at" >= e.ts) TO 'duckdb_asof.parquet' (FORMAT parquet)''')
"""
POLARS_TRAINING = """
import polars as pl
windows = {windows!r}
e = pl.scan_parquet("events.parquet").select("user_id", "ts", "amount", pl.lit(None, pl.Int64).alias("label_id"))
l = pl.scan_parquet("labels.parquet").select("user_id", pl.col("at").alias("ts"), pl.lit(None, pl.Float64).alias("amount"), "label_id")
u = pl.concat([e, l]).sort("user_id", "ts")
a = pl.col("amount")
columns = []
for w in windows:
    for name, call in (("sum", a.rolling_sum_by), ("avg", a.rolling_mean_by), ("min", a.rolling_min_by), ("max", a.rolling_max_by)):
        columns.append(call("ts", w, closed="left").over("user_id").alias(f"{{name}}_{{w}}"))
u.select("label_id", *columns).filter(pl.col("label_id").is_not_null()).collect().write_parquet("polars_{task}.parquet")
"""
POLARS_ASOF = """
import polars as pl
l = pl.scan_parquet("labels.parquet").sort("at")
e = pl.scan_parquet("events.parquet").select("user_id", "ts", "amount", "quantity")
l.join_asof(e, left_on="at", right_on="ts", by="user_id", strategy="backward").select("label_id", "amount", "quantity").collect().write_parquet("polars_asof.parquet")
"""
SPARK_TRAINING = """
from pyspark.sql import SparkSession, Window, functions as F
s = SparkSession.builder.master("local[2]").config("spark.driver.memory", "12g").config("spark.sql.shuffle.partitions", "8").config("spark.ui.enabled", "false").config("spark.sql.session.timeZone", "UTC").getOrCreate()
e = s.read.parquet("events.parquet").select("user_id", F.col("ts").cast("timestamp").alias("ts"), "amount", F.lit(None).cast("long").alias("label_id"))
l = s.read.parquet("labels.parquet").select("user_id", F.col("at").cast("timestamp").alias("ts"), F.lit(None).cast("double").alias("amount"), "label_id")
u = e.union(l).withColumn("us", F.unix_micros("ts"))
cols = []
for name, seconds in (("1h", 3600), ("1d", 86400), ("7d", 604800), ("30d", 2592000)):
    w = Window.partitionBy("user_id").orderBy("us").rangeBetween(-seconds * 1000000, -1)
    for n, f in (("n", F.count), ("sum", F.sum), ("avg", F.avg), ("min", F.min), ("max", F.max)):
        cols.append(f("amount").over(w).alias(f"{{n}}_{{name}}"))
u.select("label_id", *cols).where("label_id IS NOT NULL").write.mode("overwrite").parquet("spark_{task}.parquet")
"""
COMPARE = """
import sys, duckdb
c = duckdb.connect()
a, b = sys.argv[1:3]
names = [r[0] for r in c.execute(f"DESCRIBE SELECT * FROM '{b}'").fetchall() if r[0] != "label_id"]
# Polars gives 0, or what rounding left of it, for the sum of nothing; SQL gives NULL.
same = "(a.{n} IS NULL AND (b.{n} IS NULL OR ('{n}' LIKE 'sum%' AND abs(b.{n}) < 1e-9)) OR coalesce(abs(a.{n} - b.{n}) <= 1e-9 * abs(b.{n}) + 1e-9, false))"
wrong = " OR ".join("NOT " + same.format(n=n) for n in names)
rows, bad = c.execute(f"SELECT count(*), count(*) FILTER (WHERE {wrong}) FROM '{a}' a FULL JOIN '{b}' b ON a.label_id = b.label_id").fetchone()
print(rows, "rows,", len(names), "columns,", bad, "differ")
sys.exit(bad != 0)
"""


def timed(command, folder, result):
    """Wall seconds and peak memory in MB of a process, whose result of the run before is removed first."""
    subprocess.check_call(["rm", "-rf", ".featurectl", result], cwd=folder)
    began = time.time()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env={**os.environ, "POLARS_MAX_THREADS": "2", "RAYON_NUM_THREADS": "2"})
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command}: {errors.decode()[-2000:]}")
    return time.time() - began, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("featurectl")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-rounds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--spark", action="store_true")
    args = parser.parse_args()
    binary = os.path.abspath(args.featurectl)
    folder = prepare(args)
    scripts = {"duckdb training": DUCKDB_TRAINING, "polars training": POLARS_TRAINING, "duckdb asof": DUCKDB_ASOF, "polars asof": POLARS_ASOF}
    if args.spark:
        scripts["spark training"] = SPARK_TRAINING
    runs = []
    for name in ("training", "one", "sawtooth", "hundred", "asof", "small"):
        path = f"{folder}/{name}.sql"
        with open(path, "w") as f:
            f.write(job("training" if name in ("small", "one") else name).replace("out_training", f"out_{name}"))
        config = f"{folder}/{name}.toml"
        with open(config, "w") as f:
            f.write(f"[profile.default]\nthreads = {1 if name == 'one' else 2}\n" + ("memory_mb = 512\n" if name == "small" else ""))
        pinned = ["taskset", "-c", "0"] if name == "one" else []
        runs.append((f"featurectl {name}", pinned + [binary, "run", f"{name}.sql", "--config", config], f"out_{name}", args.rounds))
    for name, script in scripts.items():
        text = script.format(windows=WINDOWS, task=name.split()[1]) if "{" in script else script
        runs.append((name, [PYTHON, "-c", text], name.replace(" ", "_") + ".parquet", args.peer_rounds))
    wanted = [w for w in args.only.split(",") if w]
    runs = [r for r in runs if not wanted or any(w in r[0] for w in wanted)]
    figures = {name: [] for name, *_ in runs}
    for number in range(max(args.rounds, args.peer_rounds)):
        for name, command, result, rounds in runs:
            if number < rounds:
                # A virtual machine gives memory that is free for seconds back, and waits for what it takes again: the
                # first run is for the memory that the second one needs.
                figures[name].append([timed(command, folder, result) for _ in range(2)][1])
    for peer in scripts:
        engine, task = peer.split()
        if peer in figures and f"featurectl {task}" in figures:
            there = f"{engine}_{task}.parquet" + ("/*.parquet" if engine == "spark" else "")
            print(f"{peer}:", subprocess.run([PYTHON, "-c", COMPARE, f"out_{task}/*.parquet", there], cwd=folder, capture_output=True, text=True).stdout.strip())
    print(f"{'':<22}{'seconds':>9}{'MB':>8}")
    for name, values in figures.items():
        print(f"{name:<22}{statistics.median(v[0] for v in values):>9.2f}{statistics.median(v[1] for v in values):>8.0f}")
    if not wanted or "backfill" in wanted:
        backfill(binary, folder, args.rounds)
    if args.events == 10_000_000:
        draw({n: statistics.median(v[0] for v in values) for n, values in figures.items()}, f"{HERE}/training.svg")


def backfill(binary, folder, rounds):
    """All daily files but five, then those one by one: the seconds that the statement takes, and the process."""
    lake, days = f"{folder}/lake", sorted(os.listdir(f"{folder}/days"))
    sql = ("CREATE EXTERNAL TABLE events STORED AS PARQUET LOCATION 'days';\n"
           "CREATE FEATURE VIEW f ENTITY (user_id) EVENT TIME ts WITH (resolution = '1 day') AS SELECT count(amount) OVER w AS n, sum(amount) OVER w AS total, "
           "avg(amount) OVER w AS mean, min(amount) OVER w AS least, max(amount) OVER w AS most FROM events WINDOW w AS (RANGE INTERVAL '30 days' PRECEDING);\n"
           "MATERIALIZE FEATURE VIEW f;\n")
    def step(files):
        for day in files:
            shutil.copy(f"{folder}/days/{day}", f"{lake}/days/{day}")
        began = time.time()
        out = subprocess.run([binary, "run", "job.sql", "-o", "json"], cwd=lake, capture_output=True, text=True, check=True).stdout
        return [s["seconds"] for s in json.loads(out)["steps"] if s["verb"] == "Computed"][-1], time.time() - began
    median = lambda pairs: [statistics.median(p[i] for p in pairs) for i in (0, 1)]
    wholes, more = [], []
    for _ in range(rounds):
        shutil.rmtree(lake, ignore_errors=True)
        os.makedirs(f"{lake}/days")
        with open(f"{lake}/job.sql", "w") as f:
            f.write(sql)
        wholes.append(step(days[:-5]))
        more.append(median([step([day]) for day in days[-5:]]))
    (whole, process), (one, one_process) = median(wholes), median(more)
    share = whole / (len(days) - 5)
    print(f"backfill of {len(days) - 5} days {whole:.2f} s (process {process:.2f} s), {share:.3f} s a day")
    print(f"one more day {one:.3f} s (process {one_process:.3f} s), {one / share:.2f} x its share; again, nothing new: {step([])[0]:.3f} s")


def draw(seconds, path):
    """Bars of the training-set task, on a scale of seconds that are ten times more each step."""
    bars = [(n, s) for n, s in seconds.items() if n.split()[1] in ("training", "sawtooth")]
    if len(bars) < 3:
        return
    width = lambda s: 150 * (math.log10(s) + 1)
    rows = []
    for i, (name, value) in enumerate(sorted(bars, key=lambda b: b[1])):
        colour = "#2b6cb0" if name.startswith("featurectl") else "#a0aec0"
        rows.append(f'<text x="8" y="{34 + 26 * i}">{name}</text><rect x="170" y="{20 + 26 * i}" width="{width(value):.0f}" height="18" fill="{colour}"/>'
                    f'<text x="{176 + width(value):.0f}" y="{34 + 26 * i}">{value:.2f} s</text>')
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{30 + 26 * len(rows)}" font-family="sans-serif" font-size="13">'
                '<rect width="100%" height="100%" fill="white"/>' + "".join(rows) + "</svg>\n")


if __name__ == "__main__":
    main()
