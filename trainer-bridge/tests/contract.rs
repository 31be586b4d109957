//! The files and variables, as snapshots.

use crate::job;
use expect_test::expect;
use featurectl_trainer_bridge::Contract;
use std::fs;
use std::path::Path;

fn relative(text: &str, base: &Path) -> String {
    text.replace(&base.display().to_string(), "<base>")
}

#[test]
fn the_launcher_writes_the_files_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let contract = Contract::new(dir.path());
    contract.prepare(&job(dir.path(), &["train"], &[("rounds", "300"), ("note", "a \"b\"")])).unwrap();
    let read = |name: &str| fs::read_to_string(contract.config_dir().join(name)).unwrap();
    let all = ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"].map(read).concat();
    expect![[r#"
        {
          "note": "a \"b\"",
          "rounds": "300"
        }
        {
          "train": {
            "ContentType": "application/x-parquet",
            "RecordWrapperType": "None",
            "S3DistributionType": "FullyReplicated",
            "TrainingInputMode": "File"
          }
        }
        {
          "current_group_name": "homogeneousCluster",
          "current_host": "algo-1",
          "current_instance_type": "local",
          "hosts": [
            "algo-1"
          ],
          "instance_groups": [
            {
              "hosts": [
                "algo-1"
              ],
              "instance_group_name": "homogeneousCluster",
              "instance_type": "local"
            }
          ],
          "network_interface_name": "lo"
        }
    "#]]
    .assert_eq(&all);
    for made in ["input/data/train", "model", "output/data", "code"] {
        assert!(dir.path().join(made).is_dir(), "{made}");
    }
    assert_eq!(contract.hyperparameters().unwrap()["note"], "a \"b\"");
}

#[test]
fn the_environment_of_a_program() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("rounds", "300"), ("learning_rate", "0.10"), ("features", "[\"a\", \"b\"]"), ("label", "y")];
    let job = job(dir.path(), &["validation", "train"], &settings);
    let cpus = std::thread::available_parallelism().unwrap();
    let env = Contract::new(dir.path()).env(&job).into_iter().map(|(name, value)| format!("{name}={value}\n"));
    let text = relative(&env.collect::<String>(), dir.path())
        .replace(&format!("\"num_cpus\":{cpus}"), "\"num_cpus\":<cpus>")
        .replace(&format!("SM_NUM_CPUS={cpus}"), "SM_NUM_CPUS=<cpus>");
    expect![[r#"
        SAGEMAKER_BASE_DIR=<base>
        SM_CHANNELS=["train","validation"]
        SM_CHANNEL_TRAIN=<base>/input/data/train
        SM_CHANNEL_VALIDATION=<base>/input/data/validation
        SM_CURRENT_HOST=algo-1
        SM_HOSTS=["algo-1"]
        SM_HPS={"features":["a","b"],"label":"y","learning_rate":0.1,"rounds":300}
        SM_HP_FEATURES=["a","b"]
        SM_HP_LABEL=y
        SM_HP_LEARNING_RATE=0.1
        SM_HP_ROUNDS=300
        SM_INPUT_DATA_CONFIG={"train":{"ContentType":"application/x-parquet","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"},"validation":{"ContentType":"application/x-parquet","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}}
        SM_MODEL_DIR=<base>/model
        SM_NUM_CPUS=<cpus>
        SM_NUM_GPUS=0
        SM_OUTPUT_DATA_DIR=<base>/output/data
        SM_RESOURCE_CONFIG={"current_group_name":"homogeneousCluster","current_host":"algo-1","current_instance_type":"local","hosts":["algo-1"],"instance_groups":[{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"local"}],"network_interface_name":"lo"}
        SM_TRAINING_ENV={"channel_input_dirs":{"train":"<base>/input/data/train","validation":"<base>/input/data/validation"},"current_host":"algo-1","hosts":["algo-1"],"hyperparameters":{"features":["a","b"],"label":"y","learning_rate":0.1,"rounds":300},"input_config_dir":"<base>/input/config","input_data_config":{"train":{"ContentType":"application/x-parquet","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"},"validation":{"ContentType":"application/x-parquet","RecordWrapperType":"None","S3DistributionType":"FullyReplicated","TrainingInputMode":"File"}},"input_dir":"<base>/input","is_master":true,"job_name":"late-arrival","master_hostname":"algo-1","model_dir":"<base>/model","num_cpus":<cpus>,"num_gpus":0,"output_data_dir":"<base>/output/data","output_dir":"<base>/output","resource_config":{"current_group_name":"homogeneousCluster","current_host":"algo-1","current_instance_type":"local","hosts":["algo-1"],"instance_groups":[{"hosts":["algo-1"],"instance_group_name":"homogeneousCluster","instance_type":"local"}],"network_interface_name":"lo"}}
        SM_USER_ARGS=["--features","[\"a\", \"b\"]","--label","y","--learning_rate","0.10","--rounds","300"]
        TRAINING_JOB_NAME=late-arrival
    "#]].assert_eq(&text);
}

#[test]
fn the_first_failure_stands_and_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let contract = Contract::new(dir.path());
    contract.fail(&"é".repeat(2000)).unwrap();
    contract.fail("a consequence").unwrap();
    assert_eq!(fs::read_to_string(contract.failure_file()).unwrap(), "é".repeat(1024));
}

#[test]
fn a_job_never_mixes_its_model_with_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let contract = Contract::new(dir.path());
    let job = job(dir.path(), &[], &[]);
    contract.fail("of an earlier attempt").unwrap();
    contract.prepare(&job).unwrap();
    assert!(!contract.failure_file().exists());
    fs::write(contract.model_dir().join("model.txt"), "").unwrap();
    let error = contract.prepare(&job).unwrap_err().to_string();
    expect!["`<base>/model` already holds a model: remove it or launch into another folder"]
        .assert_eq(&relative(&error, dir.path()));
}

#[test]
fn a_channel_cannot_leave_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let error = Contract::new(dir.path()).prepare(&job(dir.path(), &["../x"], &[])).unwrap_err();
    expect!["`../x` cannot be a channel's name: use 1 to 64 letters, digits, `.`, `-` or `_`, not starting with `.`"]
        .assert_eq(&error.to_string());
}
