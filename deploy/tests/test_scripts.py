"""Units, the watcher of spot notices, the EMR scripts, and every command line against the binary."""

import hashlib
import http.server
import json
import os
import re
import shutil
import tempfile
import threading
import unittest
from pathlib import Path

import test_terraform
from support import DEPLOY, FEATURECTL, SHA, TERRAFORM, featurectl_commands, parse_env, run, unit_command, unit_settings

SYSTEMD = DEPLOY / "systemd"
DOCS = DEPLOY.parent / "docs"
ROLES = ("scheduler", "executor")

SPOT_NOTICE_SECONDS = 120
SPOT_POLL_SECONDS = 5


def unit(name):
    return (SYSTEMD / f"featurectl-{name}.service").read_text()


def example_env(role):
    return parse_env((SYSTEMD / f"{role}.env.example").read_text())


class Units(unittest.TestCase):
    def test_the_drain_fits_into_a_spot_notice(self):
        settings = dict(unit_settings(unit("executor")))
        drain = int(re.search(r"DRAIN_SECONDS=(\d+)", settings["Environment"])[1])
        stop = int(settings["TimeoutStopSec"])
        self.assertGreaterEqual(stop, drain + 15)
        self.assertLessEqual(stop + SPOT_POLL_SECONDS, SPOT_NOTICE_SECONDS)
        self.assertEqual(settings["KillSignal"], "SIGTERM")

    def test_the_examples_set_what_the_units_use(self):
        for role in ROLES:
            used = set(re.findall(r"\$\{?([A-Z_]+)", dict(unit_settings(unit(role)))["ExecStart"]))
            self.assertEqual(set(example_env(role)), used, role)

    def test_a_scheduler_without_settings_listens_to_this_machine_only(self):
        self.assertEqual(
            unit_command(unit("scheduler"), {}),
            "/usr/local/bin/featurectl cluster scheduler --bind 127.0.0.1 --port 50050".split(),
        )

    def test_the_units_are_hardened(self):
        for name in (*ROLES, "spot-watch"):
            settings = dict(unit_settings(unit(name)))
            self.assertEqual((settings["NoNewPrivileges"], settings["ProtectSystem"]), ("yes", "strict"), name)
        for role in ROLES:
            settings = dict(unit_settings(unit(role)))
            self.assertEqual((settings["User"], settings["CapabilityBoundingSet"]), ("featurectl", ""), role)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_reads_the_units_without_a_complaint(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in (*ROLES, "spot-watch"):
                # systemd wants programs that exist.
                text = re.sub(r"/usr/local/bin/\S+", "/bin/true", unit(name))
                Path(folder, f"featurectl-{name}.service").write_text(text)
            result = run("systemd-analyze", "verify", *sorted(Path(folder).iterdir()))
        self.assertEqual((result.returncode, result.stdout), (0, ""))


class Metadata(http.server.BaseHTTPRequestHandler):
    """The metadata service: tokens expire after `uses` requests, and a path answers 404 until its time has come."""

    protocol_version = "HTTP/1.0"

    def do_PUT(self):
        self.server.tokens += 1
        self.server.left = self.server.uses
        self.reply(200, f"token-{self.server.tokens}")

    def do_GET(self):
        self.server.requests += 1
        self.server.left -= 1
        path = self.path.removeprefix("/latest/meta-data/")
        if self.headers["X-aws-ec2-metadata-token"] != f"token-{self.server.tokens}" or self.server.left < 0:
            return self.reply(401, "")
        after, body = self.server.answers.get(path, (None, ""))
        if after is not None and self.server.requests > after:
            return self.reply(200, body)
        return self.reply(404, "<html>404</html>")

    def reply(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class SpotWatch(unittest.TestCase):
    def watch(self, answers, uses=1000):
        """Runs the watcher until it ends; what it said, whether it stopped the executor, and the service's counts."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
        server.answers, server.uses, server.left, server.tokens, server.requests = answers, uses, 0, 0, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            stopped = Path(folder, "stopped")
            environment = {
                **os.environ,
                "FEATURECTL_IMDS": f"http://127.0.0.1:{server.server_port}",
                "FEATURECTL_STOP": f"touch {stopped}",
                "FEATURECTL_POLL": "0.05",
            }
            result = run(SYSTEMD / "featurectl-spot-watch", env=environment)
            server.shutdown()
            server.server_close()
            self.assertEqual((result.returncode, stopped.exists()), (0, True), result.stdout)
        return result.stdout, server

    def test_a_spot_notice_stops_the_executor(self):
        notice = '{"action": "terminate", "time": "2026-01-31T18:00:00Z"}'
        text, server = self.watch({"spot/instance-action": (6, notice), "autoscaling/target-lifecycle-state": (0, "InService")})
        self.assertIn(notice, text)
        self.assertGreater(server.requests, 6)

    def test_a_machine_that_leaves_its_group_stops_the_executor(self):
        text, _ = self.watch({"autoscaling/target-lifecycle-state": (4, "Terminated")})
        self.assertIn("the group takes this machine out", text)

    def test_an_expired_token_is_renewed(self):
        _, server = self.watch({"spot/instance-action": (9, "{}")}, uses=4)
        self.assertGreater(server.tokens, 1)


def emr(script, *arguments):
    return run(DEPLOY / "emr" / script, *arguments)


def bootstrap(role, *options):
    return emr("bootstrap.sh", "--from", "s3://bucket/featurectl", "--sha256", SHA, "--dry-run", "--role", role, *options)


ALL_OPTIONS = (
    "--threads 6 --memory-mb 20000 --work-dir /mnt1/featurectl --drain-seconds 60 --efs fs-01:fsap-02 --port 50060"
).split()


def written(text):
    """The files of a dry run: `# NAME:` and then their lines behind `#   `."""
    found = re.findall(r"^# (/\S+):\n((?:#   .*\n?)*)", text, re.MULTILINE)
    return {name: re.sub(r"^#   ", "", body, flags=re.MULTILINE) for name, body in found}


def emr_command(role, *options):
    """What runs on a node that was set up with these options."""
    name = "scheduler" if role == "primary" else "executor"
    files = written(bootstrap(role, *options).stdout)
    return unit_command(unit(name), parse_env(files[f"/etc/featurectl/{name}.env"]))


class Emr(unittest.TestCase):
    def test_the_primary_node_runs_the_scheduler(self):
        text = bootstrap("primary").stdout
        self.assertIn("systemctl enable --now featurectl-scheduler.service", text)
        self.assertNotIn("enable --now featurectl-executor", text)
        self.assertEqual(emr_command("primary")[2:], "scheduler --bind 10.0.1.20 --port 50050".split())

    def test_other_nodes_run_an_executor_and_the_watcher(self):
        text = bootstrap("core").stdout
        self.assertIn("systemctl enable --now featurectl-executor.service featurectl-spot-watch.service", text)
        self.assertNotIn("enable --now featurectl-scheduler", text)

    def test_all_options_arrive(self):
        self.assertEqual(
            emr_command("core", *ALL_OPTIONS, "--primary", "ip-10-0-9-9.ec2.internal"),
            "/usr/local/bin/featurectl cluster executor --scheduler ip-10-0-9-9.ec2.internal:50060 --bind 10.0.1.20"
            " --advertise ip-10-0-1-20.ec2.internal --port 50051 --grpc-port 50052 --work-dir /mnt1/featurectl"
            " --drain-seconds 60 --threads 6 --memory-mb 20000".split(),
        )
        text = bootstrap("core", *ALL_OPTIONS).stdout
        self.assertIn("accesspoint=fsap-02 fs-01:/ /srv/featurectl", text.replace("\\", ""))
        dropin = written(text)["/etc/systemd/system/featurectl-executor.service.d/work-dir.conf"]
        self.assertEqual(dropin, "[Service]\nReadWritePaths=/mnt1/featurectl\n")

    def test_bad_options_are_refused(self):
        cases = [
            (["--from", "bucket"], "--from must be"),
            (["--sha256", "abc"], "64 lower-case"),
            (["--drain-seconds", "100"], "at most 90"),
            (["--threads", "many"], "'many' must be a whole number"),
            (["--work-dir", "shuffle"], "absolute path"),
            (["--efs", "fs-01"], "--efs must be"),
            (["--colour", "red"], "unknown option --colour"),
            (["--port"], "--port needs a value"),
        ]
        for options, reason in cases:
            with self.subTest(options):
                result = bootstrap("core", *options)
                self.assertEqual(result.returncode, 1)
                self.assertIn(reason, result.stdout)

    def test_a_machine_that_is_no_emr_node_is_left_alone(self):
        result = emr("bootstrap.sh", "--from", "s3://bucket/featurectl", "--sha256", SHA)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is this an EMR node?", result.stdout)

    def test_the_step_waits_and_runs_the_job(self):
        result = emr("step.sh", "--job", "/srv/featurectl/p/job.sql", "--executors", "3", "--dry-run", "--", "-o", "json")
        wait, command = result.stdout.splitlines()
        self.assertIn("lists 3 executors", wait)
        self.assertRegex(command, r"^/usr/local/bin/featurectl run /srv/featurectl/p/job.sql --cluster df://\S+:50050 -o json $")

    def test_the_step_refuses_a_job_that_is_not_there(self):
        for job, reason in (("job.sql", "absolute path"), ("/srv/featurectl/none.sql", "there is no job at")):
            result = emr("step.sh", "--job", job)
            self.assertEqual(result.returncode, 2)
            self.assertIn(reason, result.stdout)


# Stands in for sudo and aws: writes down what it was called with. `aws s3 cp` brings a file.
RECORDER = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$RECORD"
case "$*" in
tee*) cat >/dev/null ;;
*/featurectl\\ */featurectl) echo binary >"${@: -1:1}" ;;
esac
"""

METADATA = """#!/usr/bin/env bash
case "$*" in
*/api/token) echo token ;;
*/local-ipv4) echo 10.0.5.5 ;;
*/local-hostname) echo ip-10-0-5-5.ec2.internal ;;
*) exit 22 ;;
esac
"""


class EmrNode(unittest.TestCase):
    """bootstrap.sh at work, on a node that is made up: its programs write down what they were called with."""

    def bootstrap(self, is_primary, sha256):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name, text in (("sudo", RECORDER), ("aws", RECORDER), ("curl", METADATA)):
                (folder / name).write_text(text)
                (folder / name).chmod(0o755)
            (folder / "instance.json").write_text(json.dumps({"isMaster": is_primary}))
            (folder / "job-flow.json").write_text(json.dumps({"masterPrivateDnsName": "ip-10-0-1-10.ec2.internal"}))
            environment = {
                **os.environ,
                "PATH": f"{folder}:{os.environ['PATH']}",
                "RECORD": str(folder / "record"),
                "FEATURECTL_EMR_INFO": str(folder),
            }
            script = DEPLOY / "emr/bootstrap.sh"
            result = run(script, "--from", "s3://bucket/featurectl", "--sha256", sha256, env=environment)
            return result, (folder / "record").read_text()

    def test_the_right_binary_is_installed_and_started(self):
        sha256 = hashlib.sha256(b"binary\n").hexdigest()
        for is_primary, units in ((True, "featurectl-scheduler.service"), (False, "featurectl-executor.service featurectl-spot-watch.service")):
            with self.subTest(is_primary=is_primary):
                result, record = self.bootstrap(is_primary, sha256)
                self.assertEqual(result.returncode, 0, result.stdout)
                self.assertIn("/usr/local/bin/featurectl\n", record)
                self.assertTrue(record.endswith(f"sudo systemctl enable --now {units}\n"), record)

    def test_another_binary_is_refused(self):
        result, record = self.bootstrap(False, SHA)
        self.assertEqual(result.returncode, 1)
        self.assertIn("has not the given SHA-256", result.stdout)
        self.assertNotIn("/usr/local/bin", record)
        self.assertNotIn("systemctl", record)


class Scheduler(http.server.BaseHTTPRequestHandler):
    """Lists one executor more at each question."""

    def do_GET(self):
        self.server.executors += self.path == "/api/executors"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([{}] * self.server.executors).encode())

    def log_message(self, *_):
        pass


@unittest.skipUnless(shutil.which("curl"), "curl is not installed")
class EmrStep(unittest.TestCase):
    """step.sh at work, with a scheduler that only counts and a featurectl that only fails."""

    def step(self, executors, *options):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scheduler)
        server.executors = executors
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            job, binary = Path(folder, "job.sql"), Path(folder, "featurectl")
            job.touch()
            binary.write_text('#!/bin/sh\necho "featurectl $*"\nexit 7\n')
            binary.chmod(0o755)
            environment = {**os.environ, "FEATURECTL_BINARY": str(binary), "FEATURECTL_SCHEDULER_HOST": "127.0.0.1"}
            script, port = DEPLOY / "emr/step.sh", server.server_port
            result = run(script, "--job", job, "--port", port, *options, env=environment)
        server.shutdown()
        server.server_close()
        return result, f"featurectl run {job} --cluster df://127.0.0.1:{port}"

    def test_the_job_runs_once_executors_are_there_and_its_exit_code_counts(self):
        result, command = self.step(1, "--executors", 2)
        self.assertEqual(result.returncode, 7)
        self.assertIn(f"2 executors are there\n{command}\n", result.stdout)

    def test_a_job_without_executors_is_an_error(self):
        result, command = self.step(0, "--executors", 9, "--wait-seconds", 1)
        self.assertEqual(result.returncode, 2)
        self.assertIn("of 9 executors came within 1 s", result.stdout)
        self.assertNotIn(command, result.stdout)


def all_commands():
    """Every command line of featurectl that a unit, a script, a rendered machine or the page on clusters has."""
    commands = [unit_command(unit(role), example_env(role)) for role in ROLES]
    for role in ("primary", "core"):
        commands += [emr_command(role), emr_command(role, *ALL_OPTIONS)]
    commands += featurectl_commands(emr("step.sh", "--job", "/srv/featurectl/p/job.sql", "--dry-run").stdout)
    commands += featurectl_commands((DOCS / "cluster.md").read_text())
    if TERRAFORM:
        with tempfile.TemporaryDirectory() as folder:
            nodes = test_terraform.render_nodes(Path(folder))
            commands += [test_terraform.boot_command(nodes, name) for name in nodes]
    return commands


class Commands(unittest.TestCase):
    def test_both_roles_and_a_run_are_among_the_commands(self):
        verbs = {" ".join(command[1:3]) for command in all_commands()}
        for verb in ("cluster scheduler", "cluster executor", "cluster up", "cluster status"):
            self.assertIn(verb, verbs)

    @unittest.skipUnless(FEATURECTL, "no binary was given: deploy/check BINARY")
    def test_the_binary_takes_every_command(self):
        for command in all_commands():
            with self.subTest(" ".join(command)):
                # The parser reads up to --help: what comes before must be known to it, and of the right type.
                result = run(FEATURECTL, *command[1:], "--help")
                self.assertEqual(result.returncode, 0, result.stdout)
                self.assertIn("Usage", result.stdout)


if __name__ == "__main__":
    unittest.main()
