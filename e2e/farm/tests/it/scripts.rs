//! The scripts around adb, where no device is needed: what they take, what they leave out, and whose server they leave alone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use polyphony_skip::skipped;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Runs it in the root of this repository, with an adb that answers by `adb`, pieces of a script's `case` of a serial or a verb, and says what it was asked.
fn run(here: &Path, adb: &str, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let program = here.join("adb-stand-in");
    let text = format!(
        "#!/bin/sh
echo \"$*\" >>{}
serial=
[ \"$1\" = -s ] && serial=$2 && shift 2
case $serial$1 in
{adb}
esac
",
        here.join("asked").display()
    );
    // Past this process, whose other tests start programs meanwhile: what is open to be written to is not run.
    let write = ["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""];
    assert!(Command::new("sh").args(write).arg(&program).arg(text).status().unwrap().success());
    let mut command = Command::new("timeout");
    command.args(["60", "bash"]).args(words).current_dir(root()).env("ADB", &program).env("CARGO_TARGET_DIR", here);
    command.env_remove("POLYPHONY_ANDROID_SERIALS").env_remove("POLYPHONY_ANDROID_PAGE_SIZE");
    command.envs(variables.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const OLD_PHONE: &str = "OLDshell) printf 'armeabi-v7a,armeabi\\r\\narmeabi-v7a\\r\\n' ;;";

#[test]
fn a_hosted_run_leaves_out_what_cannot_run_and_goes_on() {
    let here = tempfile::tempdir().unwrap();
    let devices = format!(
        "devices) printf '* daemon started\\nList of devices attached\\nNEW\\tdevice\\nOLD\\tdevice\\nFAR\\toffline\\nMUTE\\tdevice\\nPC\\tdevice\\n\\n' ;;
NEWshell) printf 'arm64-v8a,armeabi-v7a\\r\\narm64-v8a\\r\\n' ;;
{OLD_PHONE}
MUTEshell) echo 'error: closed' >&2; exit 1 ;;
PCshell) printf '\\r\\nx86_64\\r\\n' ;;"
    );
    let said = run(here.path(), &devices, &["scripts/e2e-android-hosted.sh", "--list"], &[]);
    assert_eq!(stdout(&said), "NEW arm64-v8a\nPC x86_64\n", "{said:?}");
    assert!(said.status.success(), "{said:?}");
    for words in ["OLD runs armeabi-v7a,armeabi, for which", "FAR is offline, and left out", "MUTE runs nothing that"] {
        assert!(stderr(&said).contains(words), "{words} is not in\n{}", stderr(&said));
    }
}

#[test]
fn a_hosted_run_with_nothing_to_run_on_fails() {
    let here = tempfile::tempdir().unwrap();
    let devices = format!("devices) printf 'List of devices attached\\nOLD\\tdevice\\n' ;;\n{OLD_PHONE}");
    let said = run(here.path(), &devices, &["scripts/e2e-android-hosted.sh", "--list"], &[]);
    assert!(said.status.code() == Some(1) && stderr(&said).contains("none that can be used"), "{said:?}");
}

#[test]
fn an_agent_of_old_sources_is_not_taken_for_one_of_these() {
    let here = tempfile::tempdir().unwrap();
    let agent = here.path().join("x86_64/polyphony-agent");
    let ask =
        format!("source scripts/android-agent.sh; require_agent test {} x86_64; echo taken", here.path().display());
    let asked = || run(here.path(), "", &["-c", &ask], &[]);
    assert!(stderr(&asked()).contains("not built for x86_64"), "{:?}", asked());
    fs::create_dir(agent.parent().unwrap()).unwrap();
    fs::copy("/bin/true", &agent).unwrap();
    let said = asked();
    assert!(said.status.success() && stdout(&said) == "taken\n", "{said:?}");
    let set_time = Command::new("touch").args(["--date", "2001-01-01"]).arg(&agent).status().unwrap();
    assert!(set_time.success());
    let said = asked();
    assert!(said.status.code() == Some(1) && stderr(&said).contains("is newer"), "{said:?}");
}

#[test]
fn a_server_that_was_there_is_not_ended() {
    if !rustix::process::geteuid().is_root() {
        return skipped("cheap phones are root's");
    }
    let here = tempfile::tempdir().unwrap();
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let said = run(here.path(), "", &["scripts/e2e-android.sh"], &[("ANDROID_ADB_SERVER_PORT", &port)]);
    assert!(said.status.code() == Some(1) && stderr(&said).contains(&format!("listens at port {port}")), "{said:?}");
    let asked = fs::read_to_string(here.path().join("asked")).unwrap_or_default();
    assert!(!asked.contains("kill-server"), "{asked}");
}
