"""The Terraform files: every reference is to something that is there; values, templates and policies are tried."""

import hashlib
import json
import re
import shutil
import tempfile
import unittest
from pathlib import Path

import hcl2

from support import DEPLOY, SHA, SHELLCHECK, TERRAFORM, heredocs, parse_env, run, terraform, unit_command

ROOT = DEPLOY / "terraform"
NODE = ROOT / "node"

# The most that EC2 takes as user data, before base64.
USER_DATA_BYTES_MAX = 16384


def plain(name):
    return name.strip('"')


class Module:
    """One folder: what it declares, and what its expressions refer to."""

    def __init__(self, folder):
        self.text = ""
        self.variables, self.locals, self.outputs = {}, set(), set()
        self.resources, self.data, self.modules = set(), set(), {}
        for path in sorted(folder.glob("*.tf")):
            text = path.read_text()
            self.text += re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
            self.read(hcl2.loads(text))

    def read(self, body):
        for block in body.get("variable", []):
            self.variables.update((plain(name), value) for name, value in block.items())
        for block in body.get("locals", []):
            self.locals.update(name for name in block if not name.startswith("__"))
        for block in body.get("output", []):
            self.outputs.update(plain(name) for name in block)
        for block in body.get("module", []):
            self.modules.update((plain(name), value) for name, value in block.items())
        for kind, target in (("resource", self.resources), ("data", self.data)):
            for block in body.get(kind, []):
                for type_name, instances in block.items():
                    target.update(f"{plain(type_name)}.{plain(name)}" for name in instances)

    def used(self, pattern):
        return set(re.findall(pattern, self.text))


class References(unittest.TestCase):
    """Stands in for `terraform validate`, which needs the AWS provider."""

    def check(self, folder):
        module = Module(folder)
        variables = module.used(r"\bvar\.([a-z_0-9]+)")
        self.assertEqual(variables - set(module.variables), set(), "used, but not declared")
        self.assertEqual(set(module.variables) - variables, set(), "declared, but not used")
        names = module.used(r"\blocal\.([a-z_0-9]+)")
        self.assertEqual(names, module.locals, "locals used and declared")
        data = module.used(r"(?<![-\w])data\.([a-z_0-9]+\.[a-z_0-9]+)")
        self.assertEqual(data, module.data, "data sources used and declared")
        resources = module.used(r"(?<![.\w])(aws_[a-z_0-9]+\.[a-z_0-9]+)")
        self.assertEqual(resources - module.resources, set(), "resources used, but not declared")
        return module

    def test_every_name_of_the_root_is_declared_and_used(self):
        module = self.check(ROOT)
        child = Module(NODE)
        outputs = {name for _, name in module.used(r"\bmodule\.([a-z_0-9]+)\.([a-z_0-9]+)")}
        self.assertEqual(outputs, child.outputs)
        for name, call in module.modules.items():
            given = {key for key in call if key != "source" and not key.startswith("__")}
            required = {key for key, value in child.variables.items() if "default" not in value}
            self.assertEqual(given - set(child.variables), set(), name)
            self.assertEqual(required - given, set(), name)

    def test_every_name_of_the_node_is_declared_and_used(self):
        self.check(NODE)

    def test_the_template_gets_what_it_uses(self):
        call = re.search(r"templatefile\(.*?\{(.*?)\n  \}\)", (NODE / "outputs.tf").read_text(), re.DOTALL)[1]
        given = set(re.findall(r"^    ([a-z_0-9]+)\s*=", call, re.MULTILINE))
        template = (NODE / "user-data.sh.tftpl").read_text()
        expressions = " ".join(re.findall(r"[$%]\{~?(.*?)~?\}", template))
        words = set(re.findall(r"(?<![.\w])[a-z_0-9]+", re.sub(r'"[^"]*"', "", expressions)))
        syntax = {"if", "else", "endif", "for", "in", "endfor", "null", "key", "value"}
        self.assertEqual(words - syntax, given)

    def test_every_variable_is_described(self):
        for folder in (ROOT, NODE):
            for name, value in Module(folder).variables.items():
                self.assertIn("description", value, name)

    def test_nothing_gets_a_public_address_and_metadata_needs_tokens(self):
        text = Module(ROOT).text
        machines = len(re.findall(r'resource "aws_(instance|launch_template)"', text))
        for setting in ("associate_public_ip_address += false", 'http_tokens += "required"', "encrypted += true"):
            self.assertEqual(len(re.findall(setting, text)), machines, setting)
        self.assertNotIn("map_public_ip", text)
        self.assertEqual(re.findall(r'cidr_ipv4 += "', text), [], "an address range that the user did not give")


GOOD = {
    "region": "eu-west-1",
    "subnet_ids": ["subnet-0a1b"],
    "binary_s3_uri": "s3://bucket/featurectl/featurectl",
    "binary_sha256": SHA,
    "spot_max_price_usd": 0.4,
    "scheduler_usd_per_hour": 0.1,
    "volume_usd_per_gb_month": 0.1,
    "max_hourly_usd": 5,
}

EFS = {"file_system_id": "fs-01", "access_point_id": "fsap-02", "security_group_id": "sg-03"}

REFUSED = [
    ({"name": "Featurectl"}, "lower-case letters"),
    ({"subnet_ids": []}, "at least one subnet"),
    ({"scheduler_private_ip": "10.0.1.300"}, "IPv4 address"),
    ({"https_egress_cidrs": ["10.0.0.0"]}, "a range such as"),
    ({"architecture": "x86"}, "x86_64 or arm64"),
    ({"executor_instance_types": ["m6i.large", "m6i.large"]}, "each once"),
    ({"executors": 5}, "at most executors_max"),
    ({"executors_max": 0}, "from 1 to 200"),
    ({"executor_threads": 0}, "at least one thread"),
    ({"executor_memory_mb": 100}, "at least 512 MB"),
    ({"executor_volume_gb": 10}, "20 to 16384"),
    ({"drain_seconds": 120}, "10 to 90"),
    ({"binary_s3_uri": "s3://bucket/a b"}, "s3://bucket/key"),
    ({"binary_s3_uri": "https://bucket/a"}, "s3://bucket/key"),
    ({"binary_sha256": SHA.upper()}, "64 lower-case"),
    ({"efs": {**EFS, "access_point_id": "ap-02"}}, "fsap-"),
    ({"data_s3_uri": "s3://bucket/"}, "A whole bucket can't be given"),
    ({"data_s3_uri": "s3://bucket/p/"}, "without a slash at its end"),
    ({"spot_max_price_usd": 0}, "above 0"),
    ({"max_hourly_usd": 2}, "could cost 2.24 USD an"),
    ({"end_at": "tomorrow"}, "a time in UTC"),
    ({"end_at": "2026-01-31T18:00:00+01:00"}, "a time in UTC"),
]


@unittest.skipUnless(TERRAFORM, "terraform is not installed")
class Values(unittest.TestCase):
    """The root's variables and its arithmetic, without its resources."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for name in ("variables.tf", "cost.tf"):
            shutil.copy(ROOT / name, cls.folder)
        (cls.folder / "outputs.tf").write_text('output "ceiling" {\n  value = local.ceiling_usd_per_hour\n}\n')
        assert terraform(cls.folder, "init").returncode == 0

    def plan(self, **values):
        (self.folder / "terraform.tfvars.json").write_text(json.dumps({**GOOD, **values}))
        result = terraform(self.folder, "plan", "-no-color", "-lock=false")
        return result.returncode, " ".join(result.stdout.split())

    def test_good_values_are_taken(self):
        for values in ({}, {"efs": EFS, "data_s3_uri": "s3://bucket/a/b", "end_at": "2026-01-31T18:00:00Z"}):
            code, text = self.plan(**values)
            self.assertEqual(code, 0, text)

    def test_the_ceiling_counts_a_tenth_more_machines_and_all_volumes(self):
        # 4 + 1 machines at 0.4; the scheduler at 0.1; 5 × 200 + 20 GB at 0.1 a month of 730 hours: 2.2397.
        self.assertIn("ceiling = 2.24", self.plan()[1])
        # 20 + 2 machines.
        self.assertIn("ceiling = 9.506", self.plan(executors_max=20, max_hourly_usd=10)[1])

    def test_bad_values_are_refused_with_a_reason(self):
        for values, reason in REFUSED:
            with self.subTest(values):
                code, text = self.plan(**values)
                self.assertEqual(code, 1, text)
                self.assertIn(reason, text)


NODE_TEST = """
variable "nodes" {
  type = any
}
module "node" {
  source   = "./terraform/node"
  for_each = var.nodes
  role     = each.value.role
  env      = each.value.env
  options  = each.value.options
  node     = each.value.node
}
output "nodes" {
  value = module.node
}
"""

PLAIN = {
    "binary_s3_uri": "s3://bucket/bin/featurectl",
    "binary_sha256": SHA,
    "partition": "aws",
    "region": "eu-west-1",
    "account_id": "123456789012",
    "data_s3_uri": None,
    "efs": None,
    "end_at": None,
    "session_manager": False,
}
FULL = {
    **PLAIN,
    "data_s3_uri": "s3://bucket/data/flights",
    "efs": EFS,
    "end_at": "2026-01-31T18:00:00Z",
    "session_manager": True,
}
EXECUTOR_ENV = {"SCHEDULER": "ip-10-0-1-10.ec2.internal:50050", "PORT": "50051", "GRPC_PORT": "50052", "DRAIN_SECONDS": "90"}


def render_nodes(folder):
    """User data and policy of both roles, with as little and as much as can be set."""
    (folder / "terraform").mkdir()
    shutil.copytree(NODE, folder / "terraform/node")
    shutil.copytree(DEPLOY / "systemd", folder / "systemd")
    (folder / "main.tf").write_text(NODE_TEST)
    nodes = {}
    for name, node in (("plain", PLAIN), ("full", FULL)):
        nodes[f"scheduler-{name}"] = {"role": "scheduler", "env": {"PORT": "50050"}, "options": [], "node": node}
        options = [] if node is PLAIN else ["--threads", "8", "--memory-mb", "20000"]
        nodes[f"executor-{name}"] = {"role": "executor", "env": EXECUTOR_ENV, "options": options, "node": node}
    (folder / "terraform.tfvars.json").write_text(json.dumps({"nodes": nodes}))
    for arguments in (["init"], ["apply", "-auto-approve", "-no-color"]):
        result = terraform(folder, *arguments)
        assert result.returncode == 0, result.stdout
    return json.loads(terraform(folder, "output", "-json", "nodes").stdout)


def boot_command(nodes, name):
    """What the unit of a rendered machine runs, at the address that its script would find."""
    role = name.split("-")[0]
    files = heredocs(nodes[name]["user_data"])
    env = files[f"/etc/featurectl/{role}.env"]
    env = env.replace("$address", "10.0.1.20").replace("$name", "ip-10-0-1-20.ec2.internal")
    return unit_command(files[f"/etc/systemd/system/featurectl-{role}.service"], parse_env(env))


@unittest.skipUnless(TERRAFORM, "terraform is not installed")
class Nodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.nodes = render_nodes(cls.folder)

    def test_user_data_fits_and_is_clean(self):
        for name, node in self.nodes.items():
            with self.subTest(name):
                script = self.folder / f"{name}.sh"
                script.write_text(node["user_data"])
                self.assertLess(script.stat().st_size, USER_DATA_BYTES_MAX)
                result = run(SHELLCHECK, script)
                self.assertEqual(result.returncode, 0, result.stdout)

    def test_only_the_binary_with_the_given_sum_passes(self):
        (line,) = re.findall(r"^.*sha256sum.*$", self.nodes["executor-plain"]["user_data"], re.MULTILINE)
        binary = self.folder / "featurectl"
        binary.write_text("binary")
        right = line.replace(SHA, hashlib.sha256(b"binary").hexdigest())
        for command, code in ((line, 1), (right, 0)):
            result = run("bash", "-euo", "pipefail", "-c", f"download={self.folder}\n{command}")
            self.assertEqual(result.returncode, code, result.stdout)

    def test_the_files_of_the_systemd_folder_arrive_unchanged(self):
        files = heredocs(self.nodes["executor-full"]["user_data"])
        for path in ("/etc/systemd/system/featurectl-executor.service", "/etc/systemd/system/featurectl-spot-watch.service", "/usr/local/bin/featurectl-spot-watch"):
            self.assertEqual(files[path], (DEPLOY / "systemd" / Path(path).name).read_text())

    def test_the_scheduler_is_started_with_what_was_set(self):
        for name in ("scheduler-plain", "scheduler-full"):
            self.assertEqual(
                boot_command(self.nodes, name),
                "/usr/local/bin/featurectl cluster scheduler --bind 10.0.1.20 --port 50050".split(),
            )

    def test_the_executor_is_started_with_what_was_set(self):
        self.assertEqual(
            boot_command(self.nodes, "executor-full"),
            "/usr/local/bin/featurectl cluster executor --scheduler ip-10-0-1-10.ec2.internal:50050 --bind 10.0.1.20"
            " --advertise ip-10-0-1-20.ec2.internal --port 50051 --grpc-port 50052"
            " --work-dir /var/lib/featurectl/shuffle --drain-seconds 90"
            " --threads 8 --memory-mb 20000".split(),
        )

    def test_only_the_scheduler_ends_itself(self):
        self.assertIn("OnCalendar=2026-01-31 18:00:00 UTC", self.nodes["scheduler-full"]["user_data"])
        self.assertNotIn("featurectl-end", self.nodes["executor-full"]["user_data"])
        self.assertNotIn("featurectl-end", self.nodes["scheduler-plain"]["user_data"])

    def test_the_scheduler_mounts_the_files_to_read_only(self):
        mounts = {name: re.search(r"accesspoint=fsap-02\S*", node["user_data"]) for name, node in self.nodes.items()}
        self.assertEqual(mounts["scheduler-full"][0], "accesspoint=fsap-02,ro")
        self.assertEqual(mounts["executor-full"][0], "accesspoint=fsap-02")
        self.assertIsNone(mounts["executor-plain"])

    def test_a_machine_may_do_what_its_role_needs(self):
        def actions(name):
            statements = json.loads(self.nodes[name]["policy"])["Statement"]
            return {statement["Sid"]: statement["Action"] for statement in statements}

        for role in ("scheduler", "executor"):
            self.assertEqual(actions(f"{role}-plain"), {"Binary": ["s3:GetObject"]})
        scheduler, executor = actions("scheduler-full"), actions("executor-full")
        self.assertEqual(scheduler["Objects"], ["s3:GetObject"])
        self.assertEqual(scheduler["Files"], ["elasticfilesystem:ClientMount"])
        self.assertEqual(executor["Objects"], ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"])
        self.assertEqual(executor["Files"], ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"])

    def test_a_policy_names_its_resources(self):
        for name, node in self.nodes.items():
            for statement in json.loads(node["policy"])["Statement"]:
                with self.subTest(name, sid=statement["Sid"]):
                    self.assertNotIn("*", " ".join(statement["Action"]))
                    if statement["Sid"] != "Session":
                        self.assertRegex(statement["Resource"], r"^arn:aws:[a-z0-9]+:.*[^:/]+(/\*)?$")
        objects = json.loads(self.nodes["executor-full"]["policy"])["Statement"]
        self.assertEqual(
            [statement["Resource"] for statement in objects[:3]],
            ["arn:aws:s3:::bucket/bin/featurectl", "arn:aws:s3:::bucket", "arn:aws:s3:::bucket/data/flights/*"],
        )


if __name__ == "__main__":
    unittest.main()
