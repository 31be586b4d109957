"""Scoring with tree models: featurectl beside LightGBM, XGBoost, CatBoost, lleaves, YDF, oneDAL and tl2cgen.

Usage: python3 score.py BENCH_BINARY [--rows N] [--rounds N] [--data flights,synth] [--models A,B,C,D,E] [--engines NAME,...]
                        [--kernel NAME] [--single]
       python3 score.py --prepare [--data ...] [--models ...]
Makes its own virtual environment, data and models below ~/.cache/featurectl-peers/score (`--prepare`: only that), then times
every engine in a process of its own, one round of each after the other: CPU seconds of one thread per row, after loading
and a warm-up, from 32-bit floats in memory to raw margins. featurectl's margins are first compared with those of the
library that trained the model, on every row of the data, and no speed is printed for what is not equal. `--single` times
calls of one row each, from C. Prints medians of the rounds; scoring.json keeps all figures, also those of earlier runs.

  A  LightGBM  100 trees of  31 leaves      D  XGBoost  500 trees of depth 6
  B  LightGBM  500 trees of  31 leaves      E  CatBoost 500 oblivious trees of depth 6
  C  LightGBM 1000 trees of 255 leaves

BENCH_BINARY is called as `BENCH_BINARY MODEL PARQUET OUT ROUNDS 1 [KERNEL] [single]`: on one thread it scores all rows once
untimed, then ROUNDS times, writes the margins to OUT as little-endian doubles and prints one line of JSON,
{"ns_per_row": [one a round], "load_seconds": x, "first_load_seconds": y, "kernel": "..."}; with `single`, where a call scores
one row, it has "us_per_row" instead. All load a model once, and then three times more, which are timed.

To be kind to the peers: YDF cannot read these models and gets its own of the same size, its own benchmark without the
conversion of the input, its fastest engine and, as that counts wall time, only the share that ran; tl2cgen has the faster of
its two forms; CatBoost is timed from an array and from a Pool made before; lleaves gets doubles when it scores one row.
"""
import argparse
import ctypes
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.expanduser("~/.cache/featurectl-peers/score")
VENV = f"{CACHE}/venv"
PACKAGES = ["lightgbm==4.7.0", "xgboost-cpu==3.2.0", "catboost==1.2.10", "pyarrow==26.0.1", "numpy==2.4.6", "pandas==3.1.1"]
# These need not be there for every kind of machine. Newer llvmlite breaks lleaves.
OPTIONAL = [["lleaves==1.3.0", "llvmlite==0.44.0"], ["ydf==0.16.1"], ["scikit-learn-intelex==2026.2.0"], ["tl2cgen==1.0.0", "treelite==4.8.1"]]
DATA = {"flights": 327_346, "synth": 1_000_000}
# Trees and leaves, or trees and depth.
MODELS = {"A": ("lightgbm", 100, 31), "B": ("lightgbm", 500, 31), "C": ("lightgbm", 1000, 255), "D": ("xgboost", 500, 6), "E": ("catboost", 500, 6)}


SINGLE_C = r"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

double lightgbm_loop(int (*predict)(void *, const void *, int64_t *, double *), void *config, const float *x, long rows, long columns, double *out) {
  double began = seconds();
  int64_t length;
  for (long i = 0; i < rows; i++) predict(config, x + i * columns, &length, out + i);
  return seconds() - began;
}

double xgboost_loop(int (*predict)(void *, const char *, const char *, void *, const uint64_t **, uint64_t *, const float **), void *booster,
                    const float *x, long rows, long columns, double *out) {
  float row[1024];
  char array[200];
  const char *config = "{\"type\": 1, \"training\": false, \"iteration_begin\": 0, \"iteration_end\": 0, \"strict_shape\": false, \"missing\": NaN, \"cache_id\": 0}";
  const uint64_t *shape;
  uint64_t dimensions;
  const float *result;
  snprintf(array, sizeof array, "{\"data\": [%llu, true], \"shape\": [1, %ld], \"typestr\": \"<f4\", \"version\": 3}", (unsigned long long)(uintptr_t)row, columns);
  double began = seconds();
  for (long i = 0; i < rows; i++) {
    memcpy(row, x + i * columns, 4 * columns);
    out[i] = predict(booster, array, config, NULL, &shape, &dimensions, &result) ? NAN : *result;
  }
  return seconds() - began;
}

double catboost_loop(double (*predict)(const float *), const float *x, long rows, long columns, double *out) {
  double began = seconds();
  for (long i = 0; i < rows; i++) out[i] = predict(x + i * columns);
  return seconds() - began;
}

double lleaves_loop(void (*predict)(const double *, double *, int32_t, int32_t), const double *x, long rows, long columns, double *out) {
  double began = seconds();
  for (long i = 0; i < rows; i++) predict(x + i * columns, out + i, 0, 1);
  return seconds() - began;
}

#define TL2CGEN(NAME, T)                                                                                           \
  union NAME##_entry { int missing; T value; int quantized; };                                                      \
  double NAME(void (*predict)(union NAME##_entry *, int, T *), const float *x, long rows, long columns, double *out) { \
    union NAME##_entry row[1024];                                                                                  \
    double began = seconds();                                                                                      \
    for (long i = 0; i < rows; i++) {                                                                              \
      T result = 0;                                                                                                \
      for (long j = 0; j < columns; j++)                                                                           \
        if (isnan(x[i * columns + j])) row[j].missing = -1; else row[j].value = x[i * columns + j];                \
      predict(row, 1, &result);                                                                                    \
      out[i] = result;                                                                                             \
    }                                                                                                              \
    return seconds() - began;                                                                                      \
  }
TL2CGEN(tl2cgen_float_loop, float)
TL2CGEN(tl2cgen_double_loop, double)
"""


def table(name):
    return f"{CACHE}/data/{name}.parquet"


def model_path(data, model, suffix=None):
    return f"{CACHE}/models/{data}-{model}.{suffix or {'lightgbm': 'txt'}.get(MODELS[model][0], 'json')}"


def flights():
    """The example's flights that landed, by scheduled departure, with the hour of weather before it, and which were over 15 minutes late."""
    import numpy as np
    import pandas as pd
    folder = f"{HERE}/../../examples/flights/data"
    rows = pd.read_parquet(f"{folder}/flights.parquet").query("arr_delay.notna()").reset_index(drop=True)
    weather = pd.read_parquet(f"{folder}/weather.parquet").drop_duplicates(["origin", "observed_at"])
    known = rows[["origin"]].assign(observed_at=rows.sched_dep.dt.floor("h") - pd.Timedelta(hours=1))
    weather = known.merge(weather, "left", ["origin", "observed_at"]).drop(columns=["origin", "observed_at"])
    dep, arr = rows.sched_dep.dt, rows.sched_arr.dt
    codes = [np.unique(rows[c], return_inverse=True)[1] for c in ("carrier", "origin", "dest", "tailnum")]
    columns = [dep.month, dep.day, dep.day_of_week, dep.day_of_year, dep.hour, dep.minute, arr.hour, arr.minute,
               (rows.sched_arr - rows.sched_dep).dt.total_seconds() / 60, rows.distance, rows.flight, *codes, *(weather[c] for c in weather)]
    return np.column_stack([np.asarray(c, np.float32) for c in columns]), np.asarray(rows.arr_delay > 15, np.float32)


def synth():
    """50 independent columns, seven with holes, and a noisy function of some of them."""
    import numpy as np
    rng = np.random.default_rng(20)
    x = rng.standard_normal((DATA["synth"], 50), np.float32)
    y = (np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + np.abs(x[:, 3]) - (x[:, 4] > 0.5) * x[:, 5] + 0.5 * x[:, 6:16].sum(axis=1)
         + x[:, 16] ** 2 * 0.3 + np.cos(x[:, 17] * x[:, 18]) + rng.standard_normal(len(x)))
    for column in range(0, 49, 7):
        x[rng.random(len(x)) < 0.1, column] = np.nan
    return x, (y > np.median(y)).astype(np.float32)


def write(name, x):
    import pyarrow as pa
    import pyarrow.parquet as pq
    columns = {f"f{i}": x[:, i] for i in range(x.shape[1])}
    pq.write_table(pa.table(columns), f"{name}.part", row_group_size=65_536)
    os.replace(f"{name}.part", name)


def read(name):
    import numpy as np
    import pyarrow.parquet as pq
    return np.column_stack([c.to_numpy() for c in pq.read_table(table(name)).columns])


def make_data(name):
    """The data and its labels."""
    import numpy as np
    if os.path.exists(table(name)):
        return
    os.makedirs(f"{CACHE}/data", exist_ok=True)
    x, y = {"flights": flights, "synth": synth}[name]()
    assert len(x) == DATA[name], f"{name}: {len(x)} rows"
    np.save(f"{CACHE}/data/{name}-label.npy", y)
    write(table(name), x)


def chosen(name, rows):
    """Numbers of the rows to time: blocks of 1,000 that are spread over all of them."""
    import numpy as np
    if not rows or rows >= DATA[name]:
        return np.arange(DATA[name])
    starts = np.linspace(0, DATA[name] - 1000, -(-rows // 1000)).astype(int)
    return (starts[:, None] + np.arange(1000)).ravel()[:rows]


def single(name):
    """Numbers of the rows to time one by one."""
    import numpy as np
    return np.random.default_rng(1).integers(0, DATA[name], 2000)


def sample(name, numbers, suffix):
    """The name of a file of these rows."""
    if len(numbers) == DATA[name]:
        return name
    if not os.path.exists(table(f"{name}-{suffix}")):
        write(table(f"{name}-{suffix}"), read(name)[numbers])
    return f"{name}-{suffix}"


def train(data, model):
    """Default parameters apart from the size of the model."""
    import numpy as np
    if os.path.exists(model_path(data, model)):
        return
    os.makedirs(f"{CACHE}/models", exist_ok=True)
    library, trees, size = MODELS[model]
    x, y = read(data), np.load(f"{CACHE}/data/{data}-label.npy")
    names = [f"f{i}" for i in range(x.shape[1])]
    began = time.time()
    part = model_path(data, model) + ".part"
    if library == "lightgbm":
        import lightgbm
        parameters = {"objective": "binary", "num_leaves": size, "num_threads": 1, "deterministic": True, "force_row_wise": True, "seed": 1, "verbose": -1}
        lightgbm.train(parameters, lightgbm.Dataset(x, y, feature_name=names), trees).save_model(part)
    elif library == "xgboost":
        import xgboost
        parameters = {"objective": "binary:logistic", "max_depth": size, "nthread": 1, "seed": 1}
        booster = xgboost.train(parameters, xgboost.DMatrix(x, y, feature_names=names, nthread=1), trees)
        with open(part, "wb") as f:
            f.write(booster.save_raw("json"))
    else:
        import catboost
        pool = catboost.Pool(x, y, feature_names=names)
        fitted = catboost.CatBoostClassifier(iterations=trees, depth=size, thread_count=1, random_seed=1, verbose=False, allow_writing_files=False).fit(pool)
        fitted.save_model(model_path(data, model, "cbm"))
        fitted.save_model(part, format="json")
    os.replace(part, model_path(data, model))
    print(f"trained {model} on {data} in {time.time() - began:.0f} s", file=sys.stderr)


class LightGBM:
    models = "ABC"

    def load(job):
        import lightgbm
        return lightgbm.Booster(model_file=job["model"])

    def batch(booster, x):
        return timed(lambda: booster.predict(x, raw_score=True, num_threads=1))

    def single(booster, x, job):
        from lightgbm.basic import _LIB
        config = ctypes.c_void_p()
        failed = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(booster._handle, 1, 0, -1, 0, x.shape[1], b"num_threads=1", ctypes.byref(config))
        assert not failed
        return loop(job, "lightgbm", x, _LIB.LGBM_BoosterPredictForMatSingleRowFast, config)


class XGBoost:
    models = "D"

    def load(job):
        import xgboost
        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(job["model"])
        booster.set_param({"nthread": 1})
        return booster

    def batch(booster, x):
        return timed(lambda: booster.inplace_predict(x, predict_type="margin"))

    def single(booster, x, job):
        from xgboost.core import _LIB
        return loop(job, "xgboost", x, _LIB.XGBoosterPredictFromDense, booster.handle)


class CatBoost:
    """From its binary file: its own reader of JSON rounds leaf values differently."""
    models = "E"

    def load(job):
        import catboost
        return catboost.CatBoost().load_model(f"{job['name']}.cbm")

    def batch(model, x):
        return timed(lambda: model.predict(x, prediction_type="RawFormulaVal", thread_count=1))

    def single(model, x, job):
        """Its C++ export: a call of the library from Python takes longer than the model."""
        library = f"{job['name']}-catboost.so"
        if not os.path.exists(library):
            model.save_model(f"{job['name']}.cpp", format="cpp")
            with open(f"{library}.cpp", "w") as f:
                f.write(f'#include "{job["name"]}.cpp"\nextern "C" double row(const float *x) {{ return ApplyCatboostModel(std::vector<float>(x, x + {x.shape[1]})); }}\n')
            subprocess.check_call(["g++", "-O3", "-march=native", "-shared", "-fPIC", "-o", f"{library}.part", f"{library}.cpp"])
            os.replace(f"{library}.part", library)
        return loop(job, "catboost", x, ctypes.CDLL(library).row)


class CatBoostPool(CatBoost):
    def batch(model, x):
        import catboost
        pool = catboost.Pool(x)
        return timed(lambda: model.predict(pool, prediction_type="RawFormulaVal", thread_count=1))

    single = None


class Lleaves:
    """Compiled once and kept. Blocks of trees are for many rows, its manual says; inlining C takes more than 22 GB."""
    models = "ABC"

    def load(job):
        import lleaves
        model = lleaves.Model(job["model"])
        blocks = {"fblocksize": model.num_trees()} if job["single"] else {}
        model.compile(cache=f"{job['name']}-lleaves{'-single' if blocks else ''}.o", raw_score=True, finline=model.num_trees() < 1000, **blocks)
        return model

    def batch(model, x):
        return timed(lambda: model.predict(x, n_jobs=1))

    def single(model, x, job):
        return loop(job, "lleaves", x.astype("float64"), ctypes.cast(model._c_entry_func, ctypes.c_void_p))


class Ydf:
    """Its own model: as many trees and leaves, of 40,000 of the rows."""
    models = "AB"

    def load(job):
        import numpy as np
        import ydf
        ydf.verbose(0)
        if not os.path.exists(f"{job['name']}-ydf/done"):
            numbers = chosen(job["data"], 40_000)
            columns = Ydf.columns(read(job["data"])[numbers])
            columns["label"] = np.load(f"{CACHE}/data/{job['data']}-label.npy")[numbers].astype(int)
            learner = ydf.GradientBoostedTreesLearner(
                label="label", num_trees=job["trees"], growing_strategy="BEST_FIRST_GLOBAL", max_num_nodes=job["size"], max_depth=-1,
                validation_ratio=0.0, early_stopping="NONE", num_threads=1, random_seed=1)
            learner.train(columns).save(f"{job['name']}-ydf")
        return ydf.load_model(f"{job['name']}-ydf")

    def columns(x):
        return {f"f{i}": x[:, i].copy() for i in range(x.shape[1])}

    def batch(model, x):
        return Ydf.fastest(model, x, [(e, b) for e in model.list_compatible_engines()[:2] for b in (100, 1000)])

    def single(model, x, job):
        return Ydf.fastest(model, x, [(e, 1) for e in model.list_compatible_engines()])

    def fastest(model, x, settings):
        columns = Ydf.columns(x)

        def run(engine, size, duration=1.0):
            model.force_engine(engine)
            wall, cpu = time.perf_counter(), time.process_time()
            per_row = model.benchmark(columns, duration, duration / 4, size, num_threads=1).duration_per_example
            return per_row * min(1, (time.process_time() - cpu) / (time.perf_counter() - wall)) * len(x), None

        best = min(settings, key=lambda s: run(*s, duration=0.2)[0])
        return lambda: run(*best)


class OneDal:
    """daal4py, as regressions: as classifications they give probabilities."""
    models = "ABCD"

    def load(job):
        import daal4py
        from daal4py.mb import gbt_convertors
        daal4py.daalinit(1)
        if job["model"].endswith("txt"):
            booster = LightGBM.load(job)
            return gbt_convertors.get_gbt_model_from_lightgbm(booster, {**booster.dump_model(), "objective": "regression"})
        booster = XGBoost.load(job)
        config = json.loads(booster.save_config())
        config["learner"]["learner_train_param"]["objective"] = "reg:logistic"
        return gbt_convertors.get_gbt_model_from_xgboost(booster, config)

    def batch(model, x):
        import daal4py
        predict = daal4py.gbt_regression_prediction(fptype="float")
        return timed(lambda: predict.compute(x, model).prediction)

    single = None


class Tl2cgen:
    """C code, compiled once and kept: minutes with this many trees, so without C."""
    models = "ABD"

    def load(job):
        import treelite
        import tl2cgen
        libraries = [f"{job['name']}-tl2cgen{quantize}.so" for quantize in (0, 1)]
        for quantize, library in enumerate(libraries):
            if not os.path.exists(library):
                read_model = treelite.frontend.load_lightgbm_model if job["model"].endswith("txt") else treelite.frontend.load_xgboost_model
                tl2cgen.export_lib(read_model(job["model"]), "gcc", f"{library}.part.so", {"quantize": quantize, "parallel_comp": 8}, nthread=1)
                os.replace(f"{library}.part.so", library)
        return [tl2cgen.Predictor(library, nthread=1) for library in libraries], libraries, job

    def batch(loaded, x):
        import tl2cgen
        return min((timed(lambda p=p: p.predict(tl2cgen.DMatrix(x), pred_margin=True)) for p in loaded[0]), key=lambda run: run()[0])

    def single(loaded, x, job):
        name = "tl2cgen_double" if job["model"].endswith("txt") else "tl2cgen_float"
        return min((loop(job, name, x, ctypes.CDLL(library).predict) for library in loaded[1]), key=lambda run: run()[0])


# The library that trained a model comes first.
ENGINES = {"lightgbm": LightGBM, "xgboost": XGBoost, "catboost": CatBoost, "catboost pool": CatBoostPool, "lleaves": Lleaves, "ydf": Ydf, "daal4py": OneDal, "tl2cgen": Tl2cgen}


def timed(predict):
    def run():
        began = time.process_time()
        out = predict()
        return time.process_time() - began, out
    return run


def loop(job, name, x, *function):
    """Scores one row after the other, from C."""
    import numpy as np
    library = ctypes.CDLL(f"{CACHE}/single.so")
    out = np.zeros(len(x))
    call = getattr(library, f"{name}_loop")
    call.restype = ctypes.c_double
    pointer = lambda a: ctypes.c_void_p(a.ctypes.data)

    def run():
        return call(*function, pointer(x), ctypes.c_long(len(x)), ctypes.c_long(x.shape[1]), pointer(out)), out
    return run


def worker(pipe, engine, job):
    """A process for one engine and model: answers with the seconds of loading, then with those of a round for each request."""
    engine = ENGINES[engine]
    warnings.simplefilter("ignore")
    try:
        loaded, loads = engine.load(job), []
        for _ in range(3):
            began = time.perf_counter()
            loaded = engine.load(job)
            loads.append(time.perf_counter() - began)
        x = read(job["rows"])
        run = engine.single(loaded, x, job) if job["single"] else engine.batch(loaded, x)
        engine.single(loaded, x, job)() if job["single"] else engine.batch(loaded, x[:10_000])()
        pipe.send(loads)
    except Exception as e:
        pipe.send(f"{type(e).__name__}: {e}")
        return
    while pipe.recv():
        pipe.send(run())


def start(engine, data, model, rows, single=False):
    """The pipe to a new worker and the seconds of loading; None, and the reason on stderr, if the engine cannot do it."""
    _, trees, size = MODELS[model]
    job = {"name": f"{CACHE}/models/{data}-{model}", "model": model_path(data, model), "data": data, "trees": trees, "size": size,
           "rows": rows, "single": single}
    spawn = multiprocessing.get_context("spawn")
    pipe, end = spawn.Pipe()
    spawn.Process(target=worker, args=(end, engine, job), daemon=True).start()
    end.close()
    try:
        loads = pipe.recv()
    except EOFError:
        loads = "ended early"
    if isinstance(loads, str):
        print(f"{engine} on {data} {model}: {loads}", file=sys.stderr)
        return None
    return pipe, loads


def ask(pipe):
    pipe.send(True)
    return pipe.recv()


def reference(data, model):
    """The margins of every row, by the library that trained the model; kept."""
    import numpy as np
    path = f"{CACHE}/reference/{data}-{model}.npy"
    if not os.path.exists(path):
        os.makedirs(f"{CACHE}/reference", exist_ok=True)
        pipe, _ = start(MODELS[model][0], data, model, data)
        np.save(f"{path}.part.npy", ask(pipe)[1])
        pipe.send(False)
        os.replace(f"{path}.part.npy", path)
    return np.load(path)


def featurectl(args, data, model, rows, rounds):
    """What the binary says, and its margins."""
    import numpy as np
    out = f"{CACHE}/margins"
    extra = ([args.kernel] if args.kernel else []) + (["single"] if args.single else [])
    # What an earlier call left must not pass for this one's.
    if os.path.exists(out):
        os.remove(out)
    process = subprocess.run([args.bench_binary, model_path(data, model), table(rows), out, str(rounds), "1", *extra], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(process.stderr.strip()[-2000:])
    answer = json.loads(process.stdout.splitlines()[-1])
    if args.unit not in answer:
        raise RuntimeError(f"the answer has no {args.unit}")
    if not os.path.exists(out):
        raise RuntimeError("no margins were written: no speed")
    return answer, np.fromfile(out, "<f8")


def ordered(a):
    """Numbers of doubles or floats in their order, so that neighbours differ by one."""
    import numpy as np
    bits = a.view(f"i{a.itemsize}").astype(np.int64)
    return np.where(bits < 0, -(bits & ((1 << (8 * a.itemsize - 1)) - 1)), bits)


def unequal(ours, native):
    """How many margins are not the same bits, and how many units in the last place of the native type apart at most."""
    import numpy as np
    if len(ours) != len(native):
        return max(len(ours), len(native)), None
    wrong = ours.view(np.int64) != native.astype(np.float64).view(np.int64)
    apart = np.abs(ordered(ours.astype(native.dtype)[wrong]) - ordered(native[wrong]))
    return int(wrong.sum()), int(apart.max(initial=0))


def check(args, data, model, rows, native):
    """Whether featurectl's margins are the native ones, bit by bit."""
    try:
        wrong, ulp = unequal(featurectl(args, data, model, rows, 1)[1], native)
        says = f"{len(native) - wrong:,} of {len(native):,} margins equal" + (f", others up to {ulp} ulp apart: no speed" if wrong else "")
    except RuntimeError as e:
        wrong, says = True, str(e)
    print(f"{data} {model}: {says}", file=sys.stderr)
    return not wrong


def measure(args, data, model):
    """Times every engine with one model on one data set, after the check; None if that failed."""
    import numpy as np
    native = reference(data, model)
    numbers = single(data) if args.single else chosen(data, args.rows)
    rows = sample(data, numbers, "single" if args.single else args.rows)
    native, whole = native[numbers], native
    if not check(args, data, model, *((rows, native) if args.single else (data, whole))):
        return None
    names = [e for e, engine in ENGINES.items() if model in engine.models and (not args.single or engine.single) and (not args.engines or e in args.engines)]
    workers = {e: w for e in names if (w := start(e, data, model, rows, args.single))}
    runs = {"featurectl": {args.unit: [], "load_seconds": []}} | {e: {args.unit: [], "load_seconds": loads} for e, (_, loads) in workers.items()}
    for number in range(args.rounds):
        # Others keep their process; of a new one the first round may pay for memory.
        answer, margins = featurectl(args, data, model, rows, 3)
        assert not unequal(margins, native)[0]
        runs["featurectl"]["kernel"] = answer["kernel"]
        runs["featurectl"][args.unit].append(statistics.median(answer[args.unit]))
        runs["featurectl"]["load_seconds"].append(answer["load_seconds"])
        for e, (pipe, _) in workers.items():
            seconds, margins = ask(pipe)
            runs[e][args.unit].append(seconds / len(numbers) * (1e6 if args.single else 1e9))
            if number == 0 and margins is not None:
                apart = np.abs(np.ravel(margins) - native.astype(np.float64))
                runs[e]["apart"] = {"most": float(apart.max()), "rows_above_1e-4": int((apart > 1e-4).sum())}
    for pipe, _ in workers.values():
        pipe.send(False)
    return {"at": time.strftime("%Y-%m-%d %H:%M"), "model": model, "data": data, "rows": len(numbers), "engines": runs}


def report(args, figures):
    """Medians as Markdown tables: featurectl's time, how many times as long the others take, and the seconds of loading."""
    names = [e for e in ENGINES if any(e in f["engines"] for f in figures)]
    places = 2 if args.single else 0
    heads = [f"featurectl, {args.unit[:2]}", *(f"{e}, × ({args.unit[:2]})" for e in names)], ["featurectl, s", *(f"{e}, s" for e in names)]
    lines = [[f"| model | data | {' | '.join(head)} |", "|---|---|" + "--:|" * len(head)] for head in heads]
    notes = []
    for figure in figures:
        engines = figure["engines"]
        ours = statistics.median(engines["featurectl"][args.unit])
        cells = [f"{ours:,.{places}f}"]
        for e in names:
            if e not in engines:
                cells.append("")
                continue
            value = statistics.median(engines[e][args.unit])
            off = engines[e].get("apart", {}).get("rows_above_1e-4", 0)
            cells.append(f"{value / ours:.1f} ({value:,.{places}f}){'*' if off else ''}")
            if off:
                notes.append(f"\\* {e} {figure['model']} {figure['data']}: {off:,} of {figure['rows']:,} margins off by more than 1e-4, the worst by {engines[e]['apart']['most']:.2g}")
        loads = [f"{statistics.median(engines[e]['load_seconds']):.3f}" if e in engines else "" for e in ("featurectl", *names)]
        for line, row in zip(lines, (cells, loads)):
            line.append(f"| {figure['model']} | {figure['data']} | {' | '.join(row)} |")
    print("\n".join(["", *lines[0], "", *notes, f"featurectl's kernels: {', '.join(sorted({f['engines']['featurectl']['kernel'] for f in figures}))}", "", *lines[1]]))


def keep(figure):
    """Adds it to scoring.json."""
    path = f"{CACHE}/scoring.json"
    kept = {"packages": [], "runs": []}
    if os.path.exists(path):
        with open(path) as f:
            kept = json.load(f)
    kept["packages"] = PACKAGES + sum(OPTIONAL, [])
    kept["runs"].append(figure)
    with open(path, "w") as f:
        json.dump(kept, f, indent=1)


def environment():
    """Goes on in the virtual environment, after making it."""
    if sys.prefix == VENV:
        return
    python = f"{VENV}/bin/python"
    if not os.path.exists(f"{VENV}/made"):
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", VENV])
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", *PACKAGES])
        for packages in OPTIONAL:
            if subprocess.call([python, "-m", "pip", "install", "--quiet", *packages]):
                print(f"goes on without {packages[0]}", file=sys.stderr)
        open(f"{VENV}/made", "w").close()
    os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])


def prepare(args):
    for data in args.data:
        make_data(data)
    # C last: it takes longer than all others.
    for model in sorted(args.models, key=lambda m: MODELS[m][1] * MODELS[m][2] > 100_000):
        for data in args.data:
            train(data, model)
    source = f"{CACHE}/single.c"
    with open(source, "w") as f:
        f.write(SINGLE_C)
    subprocess.check_call(["gcc", "-O2", "-shared", "-fPIC", "-o", f"{CACHE}/single.so", source])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench_binary", nargs="?")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", default="flights,synth")
    parser.add_argument("--models", default="A,B,C,D,E")
    parser.add_argument("--engines", default="")
    parser.add_argument("--kernel")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    args = parser.parse_args()
    for name in ("data", "models", "engines"):
        setattr(args, name, [w for w in getattr(args, name).split(",") if w])
    if not args.bench_binary and not args.prepare:
        parser.error("BENCH_BINARY is missing")
    os.environ.update({v: "1" for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TBB_NUM_THREADS")}, OMP_WAIT_POLICY="passive")
    environment()
    prepare(args)
    if args.prepare:
        return
    args.bench_binary = os.path.abspath(args.bench_binary)
    args.unit = "us_per_row" if args.single else "ns_per_row"
    asked = [(m, d) for m in args.models for d in args.data]
    figures = []
    for model, data in asked:
        figure = measure(args, data, model)
        if figure:
            figures.append(figure)
            keep(figure)
    if figures:
        report(args, figures)
    sys.exit(len(figures) < len(asked))


if __name__ == "__main__":
    main()
