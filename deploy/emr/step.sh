#!/usr/bin/env bash
# EMR step: runs a job on the cluster that bootstrap.sh started. The exit code is featurectl's: 0, 1 or 2.
# FEATURECTL_BINARY and FEATURECTL_SCHEDULER_HOST are for tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: step.sh --job /srv/featurectl/PROJECT/job.sql [options] [-- options of `featurectl run`]

  --job FILE          the job, on the path that all machines see; its tables and stores too
  --executors N       wait until so many are there (1); a job starts with those that are
  --wait-seconds N    how long to wait for them (600)
  --port N            the scheduler's port (50050)
  --dry-run           print the commands, do nothing
TEXT
}

fail() {
  echo "step.sh: $*" >&2
  exit 2
}

job='' executors=1 wait_seconds=600 port=50050 dry_run=false more=()

parse() {
  while (($# > 0)); do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=true && shift && continue ;;
    --) shift && more=("$@") && return ;;
    --job | --executors | --wait-seconds | --port)
      (($# > 1)) || fail "$1 needs a value"
      local name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *) fail "unknown option $1; --help lists all" ;;
    esac
  done
}

validate() {
  [[ "$job" == /* ]] || fail "--job must be an absolute path on the shared file system, not '$job'"
  for number in "$executors" "$wait_seconds" "$port"; do
    [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "'$number' must be a whole number above 0"
  done
  $dry_run || [[ -r "$job" ]] || fail "there is no job at $job; is the file system mounted on this node?"
}

# How many executors the scheduler lists, 0 if it does not answer.
count() {
  { curl -sSf --max-time 5 "http://$host:$port/api/executors" || echo '[]'; } |
    python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'
}

wait_for_executors() {
  local deadline=$((SECONDS + wait_seconds)) found
  if $dry_run; then
    echo "# wait up to $wait_seconds s until $host:$port lists $executors executors"
    return
  fi
  until found=$(count) && ((found >= executors)); do
    ((SECONDS < deadline)) || fail "$found of $executors executors came within $wait_seconds s; journalctl -u featurectl-scheduler, and -u featurectl-executor on the other nodes, say why"
    sleep 5
  done
  echo "$found executors are there" >&2
}

# EMR counts YARN applications as work, not executors: this file tells it that the cluster is not idle. The loop ends with
# the job, which has this script's process id.
keep_cluster() {
  local busy=/emr/metricscollector/isbusy
  [[ -d "${busy%/*}" ]] || return 0
  (while kill -0 $$ && touch "$busy"; do sleep 30; done) </dev/null >/dev/null 2>&1 &
}

parse "$@"
validate
# Steps run on the primary node, as the scheduler does.
host=${FEATURECTL_SCHEDULER_HOST:-$(hostname -f)}
wait_for_executors
command=("${FEATURECTL_BINARY:-/usr/local/bin/featurectl}" run "$job" --cluster "df://$host:$port" ${more[@]+"${more[@]}"})
if $dry_run; then
  printf '%q ' "${command[@]}" && echo
else
  keep_cluster
  exec "${command[@]}"
fi
