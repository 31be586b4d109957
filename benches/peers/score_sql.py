"""What scoring adds to reading and writing: 10,000,000 rows of 24 columns, Parquet in, Parquet out, through SQL.

Usage: python3 score_sql.py FEATURECTL [--rounds N]
Takes the flights and models of score.py (`python3 score.py --prepare` first), repeats the flights to ten million rows, and
copies all columns once with a column of zeros and once with the predictions of each model, on two threads, alternately.
Prints medians of the seconds of a process, and what scoring costs beside reading and writing.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

CACHE = os.path.expanduser("~/.cache/featurectl-peers/score")
FILES = 31
MODELS = {"A": "flights-A.txt", "B": "flights-B.txt", "D": "flights-D.json", "E": "flights-E.json"}


def prepare():
    folder = f"{CACHE}/sql"
    if not os.path.exists(f"{folder}/rows/{FILES - 1}.parquet"):
        os.makedirs(f"{folder}/rows", exist_ok=True)
        for number in range(FILES):
            shutil.copy(f"{CACHE}/data/flights.parquet", f"{folder}/rows/{number}.parquet")
    with open(f"{folder}/two.toml", "w") as f:
        f.write("[profile.default]\nthreads = 2\n")
    for name, value in {"none": "CAST(0 AS DOUBLE)", **{m: f"predict('{CACHE}/models/{file}', *)" for m, file in MODELS.items()}}.items():
        with open(f"{folder}/{name}.sql", "w") as f:
            f.write("CREATE EXTERNAL TABLE flights STORED AS PARQUET LOCATION 'rows';\n"
                    f"COPY (SELECT *, {value} AS p FROM flights) TO 'out_{name}' STORED AS PARQUET;\n")
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("featurectl")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    binary = os.path.abspath(args.featurectl)
    if not os.path.exists(f"{CACHE}/models/flights-A.txt"):
        sys.exit("no models: run `python3 score.py --prepare` first")
    folder = prepare()
    seconds = {name: [] for name in ["none", *MODELS]}
    for _ in range(args.rounds + 1):
        for name, times in seconds.items():
            shutil.rmtree(f"{folder}/.featurectl", ignore_errors=True)
            shutil.rmtree(f"{folder}/out_{name}", ignore_errors=True)
            began = time.time()
            subprocess.run([binary, "run", f"{name}.sql", "--config", "two.toml"], cwd=folder, check=True, capture_output=True)
            times.append(time.time() - began)
    plain = statistics.median(seconds["none"][1:])
    print(f"reading and writing {plain:.2f} s")
    for name in MODELS:
        whole = statistics.median(seconds[name][1:])
        print(f"with {name} {whole:.2f} s: scoring costs {(whole - plain) / plain:.2f} x reading and writing")


if __name__ == "__main__":
    main()
