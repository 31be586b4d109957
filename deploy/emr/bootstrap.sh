#!/usr/bin/env bash
# EMR bootstrap action: starts featurectl's scheduler on the primary node and an executor on each core and task node.
# FEATURECTL_EMR_INFO is for tests.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bootstrap.sh --from s3://BUCKET/PREFIX --sha256 HEX [options]

  --from URI            prefix with the binary `featurectl` and the folder `systemd` of the project's deploy folder
  --sha256 HEX          SHA-256 of the binary
  --port N              the scheduler's port (50050)
  --threads N           tasks at once on an executor; leave some to YARN if it runs anything
  --memory-mb N         memory for all tasks of an executor
  --work-dir DIR        shuffle and spill files (/mnt/featurectl, on the node's data volume)
  --drain-seconds N     how long tasks may take to end when a spot node goes, at most 90 (90)
  --efs FS:ACCESSPOINT  file system that all machines and the driver see, as fs-0123:fsap-4567, mounted at /srv/featurectl
  --dry-run             print the commands and files, do nothing
  --role ROLE --primary HOST    with --dry-run: primary or core, and the primary node's name
TEXT
}

fail() {
  echo "bootstrap.sh: $*" >&2
  exit 1
}

from='' sha256='' port=50050 threads='' memory_mb='' work_dir=/mnt/featurectl drain_seconds=90 efs=''
dry_run=false role='' primary=''

parse() {
  while (($# > 0)); do
    case "$1" in
    --help | -h) usage && exit 0 ;;
    --dry-run) dry_run=true && shift && continue ;;
    --from | --sha256 | --port | --threads | --memory-mb | --work-dir | --drain-seconds | --efs | --role | --primary)
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
  [[ "$from" =~ ^s3://[a-z0-9][a-z0-9.-]+/[A-Za-z0-9/_.+=-]+$ ]] || fail "--from must be an s3://BUCKET/PREFIX, not '$from'"
  [[ "$sha256" =~ ^[0-9a-f]{64}$ ]] || fail "--sha256 must be 64 lower-case hexadecimal digits, as sha256sum prints them"
  for number in "$port" "$drain_seconds" "${threads:-1}" "${memory_mb:-1}"; do
    [[ "$number" =~ ^[1-9][0-9]*$ ]] || fail "'$number' must be a whole number above 0"
  done
  ((drain_seconds <= 90)) || fail "--drain-seconds must be at most 90: EC2 gives 120 s in all"
  [[ "$work_dir" =~ ^/[A-Za-z0-9/_.-]+$ ]] || fail "--work-dir must be an absolute path without spaces, not '$work_dir'"
  [[ -z "$efs" || "$efs" =~ ^fs-[0-9a-f]+:fsap-[0-9a-f]+$ ]] || fail "--efs must be as fs-0123:fsap-4567, not '$efs'"
  if ! $dry_run && [[ -n "$role$primary" ]]; then fail "--role and --primary are for --dry-run; a node knows its own"; fi
}

# Runs a command, or prints it.
run() {
  if $dry_run; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

# Writes standard input to a file of root's, or prints both.
put() {
  if $dry_run; then
    echo "# $1:" && sed 's/^/#   /'
  else
    sudo tee "$1" >/dev/null
  fi
}

field() {
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"
}

# Sets role, primary, address and name: of this node, or those of the dry run.
find_node() {
  local info=${FEATURECTL_EMR_INFO:-/mnt/var/lib/info} token imds=http://169.254.169.254/latest
  if $dry_run; then
    [[ "$role" == primary || "$role" == core ]] || fail "--dry-run needs --role primary or --role core"
    primary=${primary:-ip-10-0-1-10.ec2.internal} address=10.0.1.20 name=ip-10-0-1-20.ec2.internal
    return
  fi
  [[ -r "$info/instance.json" && -r "$info/job-flow.json" ]] || fail "$info has no instance.json or job-flow.json: is this an EMR node?"
  role=core
  if [[ "$(field "$info/instance.json" isMaster)" == True ]]; then role=primary; fi
  primary=$(field "$info/job-flow.json" masterPrivateDnsName) || fail "$info/job-flow.json does not name the primary node"
  token=$(curl -sSf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token")
  address=$(curl -sSf -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/local-ipv4")
  name=$(curl -sSf -H "X-aws-ec2-metadata-token: $token" "$imds/meta-data/local-hostname")
}

install_files() {
  local download=/tmp/featurectl
  $dry_run || download=$(mktemp -d)
  run sudo useradd --system --home-dir /var/lib/featurectl --shell /usr/sbin/nologin featurectl
  run sudo install -d -m 0755 /etc/featurectl
  run aws s3 cp --only-show-errors "$from/featurectl" "$download/featurectl"
  run aws s3 cp --only-show-errors --recursive "$from/systemd/" "$download/systemd/"
  if ! $dry_run; then
    sha256sum --check --quiet <<<"$sha256  $download/featurectl" || fail "$from/featurectl has not the given SHA-256"
  fi
  run sudo install -m 0755 "$download/featurectl" /usr/local/bin/featurectl
  run sudo install -m 0755 "$download/systemd/featurectl-spot-watch" /usr/local/bin/featurectl-spot-watch
  for unit in featurectl-scheduler featurectl-executor featurectl-spot-watch; do
    run sudo install -m 0644 "$download/systemd/$unit.service" "/etc/systemd/system/$unit.service"
  done
  run rm -r "$download"
}

mount_files() {
  [[ -n "$efs" ]] || return 0
  local options="noresvport,tls,iam,accesspoint=${efs#*:}"
  run sudo dnf -y -q install amazon-efs-utils
  run sudo install -d /srv/featurectl
  run sudo mount -t efs -o "$options" "${efs%%:*}:/" /srv/featurectl
}

options() {
  local all=()
  if [[ -n "$threads" ]]; then all+=(--threads "$threads"); fi
  if [[ -n "$memory_mb" ]]; then all+=(--memory-mb "$memory_mb"); fi
  echo "${all[*]:-}"
}

start_scheduler() {
  put /etc/featurectl/scheduler.env <<TEXT
BIND=$address
PORT=$port
OPTIONS=
TEXT
  run sudo systemctl daemon-reload
  run sudo systemctl enable --now featurectl-scheduler.service
}

start_executor() {
  local dropin=/etc/systemd/system/featurectl-executor.service.d
  put /etc/featurectl/executor.env <<TEXT
SCHEDULER=$primary:$port
BIND=$address
ADVERTISE=$name
WORK_DIR=$work_dir
DRAIN_SECONDS=$drain_seconds
OPTIONS=$(options)
TEXT
  run sudo install -d -m 0750 -o featurectl -g featurectl "$work_dir"
  run sudo install -d "$dropin"
  put "$dropin/work-dir.conf" <<TEXT
[Service]
ReadWritePaths=$work_dir
TEXT
  run sudo systemctl daemon-reload
  run sudo systemctl enable --now featurectl-executor.service featurectl-spot-watch.service
}

parse "$@"
validate
find_node
install_files
mount_files
if [[ "$role" == primary ]]; then start_scheduler; else start_executor; fi
