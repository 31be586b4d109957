"""Trains small models with LightGBM and writes, per case, `case.txt` (the model) and `case.csv`: one row per line with
its features, LightGBM's sum and LightGBM's prediction, as decimals that read back to the same bits."""

import sys
from pathlib import Path

import lightgbm
import numpy

FOREST = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}
# name: (parameters, share of the values that are missing when training)
CASES = {
    "binary": ({"objective": "binary"}, 0.0),
    "binary_steep": ({"objective": "binary", "sigmoid": 2.5}, 0.1),
    "regression": ({"objective": "regression"}, 0.0),
    "missing": ({"objective": "regression"}, 0.3),
    "zero_as_missing": ({"objective": "binary", "zero_as_missing": True}, 0.2),
    "missing_unused": ({"objective": "regression", "use_missing": False}, 0.2),
    "random_forest": ({"objective": "regression", **FOREST}, 0.1),
    "random_forest_binary": ({"objective": "binary", **FOREST}, 0.1),
    "constant": ({"objective": "regression"}, 0.0),
}
UNSUPPORTED = {
    "categorical": {"objective": "regression", "min_data_per_group": 5},
    "linear": {"objective": "regression", "linear_tree": True},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "poisson": {"objective": "poisson"},
}
COMMON = {"num_leaves": 15, "min_data_in_leaf": 5, "seed": 7, "deterministic": True, "num_threads": 1, "verbose": -1}
COLUMNS = 5


def table(random, rows, missing):
    """Columns of a normal, a heavy-tailed, a mostly zero, a small whole and a tiny number."""
    x = random.normal(size=(rows, COLUMNS))
    x[:, 1] = numpy.exp(4 * x[:, 1])
    x[random.random(rows) < 0.6, 2] = 0.0
    x[:, 3] = random.integers(-2, 6, size=rows)
    x[:, 4] *= 1e-3
    x[random.random(x.shape) < missing] = numpy.nan
    return x


def target(random, x, objective):
    """A noisy function of the columns that makes every one of them worth splitting."""
    filled = numpy.nan_to_num(x)
    y = filled[:, 0] + numpy.log1p(filled[:, 1]) * (filled[:, 2] > 0) + numpy.abs(filled[:, 3]) + 900 * filled[:, 4]
    y = y + numpy.isnan(x[:, 0]) + 0.3 * random.normal(size=len(y))
    if objective == "binary":
        return (y > numpy.median(y)).astype(float)
    if objective == "multiclass":
        return numpy.digitize(y, numpy.quantile(y, [0.3, 0.6]))
    return numpy.abs(y) if objective == "poisson" else y


def edges(booster, random):
    """Rows of values at which a split decides: its thresholds, their neighbours, zeros, NaN and infinities."""
    values = [0.0, -0.0, numpy.nan, numpy.inf, -numpy.inf, 1e-36, -1e-36, 1e-34, -1e-34, 1e300, -1e300]
    thresholds = []
    for line in booster.model_to_string().splitlines():
        if line.startswith("threshold="):
            thresholds += [float(value) for value in line.removeprefix("threshold=").split()]
    # At the bounds of zero itself LightGBM rounds its input before a tree sees it.
    thresholds = numpy.array([t for t in thresholds if abs(t) > 1e-30])
    near = [thresholds, numpy.nextafter(thresholds, numpy.inf), numpy.nextafter(thresholds, -numpy.inf)]
    return random.choice(numpy.concatenate([values, *near]), size=(1000, COLUMNS))


def write(folder, case, random, parameters, missing):
    """Trains, saves, loads and scores one case."""
    x = table(random, 600, missing)
    y = numpy.ones(600) if case == "constant" else target(random, x, parameters["objective"])
    data = lightgbm.Dataset(x, y, categorical_feature=[3] if case == "categorical" else "auto")
    trained = lightgbm.train({**COMMON, **parameters}, data, 40)
    trained.save_model(folder / f"{case}.txt")
    if case in UNSUPPORTED:
        return
    booster = lightgbm.Booster(model_file=folder / f"{case}.txt")
    rows = numpy.concatenate([x, table(random, 600, 0.1), edges(booster, random)])
    scored = numpy.column_stack([rows, booster.predict(rows, raw_score=True), booster.predict(rows)])
    lines = (",".join(repr(float(value)) for value in row) for row in scored)
    (folder / f"{case}.csv").write_text("\n".join(lines) + "\n")


def main():
    folder = Path(sys.argv[1])
    for seed, (case, (parameters, missing)) in enumerate(CASES.items()):
        write(folder, case, numpy.random.default_rng(seed), parameters, missing)
    for case, parameters in UNSUPPORTED.items():
        write(folder, case, numpy.random.default_rng(99), parameters, 0.0)


main()
