//! Scripts: what a device's shell is asked to do with programs. Pure words, for any POSIX shell with `setsid`, `sleep` and `/proc`.
//!
//! A program runs in a session of its own, whose leader writes down its number and when it started, and at the end how the program ended. So it
//! outlives the connection that started it, is known again over another one, and is never taken for a process that has its number later.

use crate::Launch;

/// `alive FILE`: does the leader that is written there still run? Its number is in `$pid` then.
/// `end FILE`: kills its whole group, and waits until it is gone.
const WORDS: &str = r#"alive() {
    read -r pid began 2>/dev/null <"$1" || return 1
    read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] && [ "$1" != X ] && [ "${20}" = "$began" ]
}
end() {
    alive "$1" || return 0
    kill -9 -$pid
    n=0
    while kill -0 -$pid 2>/dev/null; do
        n=$((n + 1))
        [ $n -le 100 ] || return 1
        sleep 0.05
    done
}"#;

/// Where a program's leader writes, in the device's folder.
const RUNS: &str = ".run";
const LOGS: &str = ".logs";

/// How a program fares, as [`state`] tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Never,
    Running,
    /// As a shell counts them: 128 and more are signals.
    Exit(i32),
    /// It was killed with its leader, or went with the device.
    Gone,
}

/// A word that the shell takes as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Starts a program and says so; the status is 3 where it is not installed, and 4 where it runs.
pub fn start(folder: &str, launch: &Launch) -> String {
    let program = quoted(&launch.program);
    let environment: String =
        launch.environment.iter().map(|(key, value)| format!("{key}={} ", quoted(value))).collect();
    let arguments: String = launch.arguments.iter().map(|argument| format!(" {}", quoted(argument))).collect();
    let pid = quoted(&format!("{RUNS}/{}.pid", launch.program));
    let exit = quoted(&format!("{RUNS}/{}.exit", launch.program));
    let log = quoted(&format!("{LOGS}/{}.log", launch.program));
    let leader = format!(
        "read -r stat </proc/$$/stat
set -- ${{stat##*) }}
echo \"$$ ${{20}}\" >{pid}.new && mv {pid}.new {pid}
NO_COLOR=1 {environment}./{program}{arguments}
echo $? >{exit}.new && mv {exit}.new {exit}"
    );
    format!(
        "{WORDS}
cd {} && [ -f ./{program} ] || exit 3
alive {pid} && exit 4
mkdir -p {RUNS} {LOGS} && rm -f {pid} {exit} || exit 5
setsid sh -c {} </dev/null >>{log} 2>&1 &
n=0
until [ -f {pid} ]; do
    n=$((n + 1))
    [ $n -le 100 ] || {{ echo 'its leader has not come up'; exit 6; }}
    sleep 0.05
done",
        quoted(folder),
        quoted(&leader),
    )
}

/// Prints what [`told`] reads.
pub fn state(folder: &str, program: &str) -> String {
    let pid = quoted(&format!("{RUNS}/{program}.pid"));
    let exit = quoted(&format!("{RUNS}/{program}.exit"));
    format!(
        "{WORDS}
cd {} && [ -f {pid} ] || {{ echo never; exit; }}
if alive {pid}; then echo running; elif [ -f {exit} ]; then echo exit $(cat {exit}); else echo gone; fi",
        quoted(folder),
    )
}

pub fn told(said: &str) -> Option<Told> {
    match said.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["never"] => Some(Told::Never),
        ["running"] => Some(Told::Running),
        ["gone"] => Some(Told::Gone),
        ["exit", code] => code.parse().ok().map(Told::Exit),
        _ => None,
    }
}

/// Kills a program, and waits until it is gone.
pub fn kill(folder: &str, program: &str) -> String {
    format!("{WORDS}\ncd {} && end {}", quoted(folder), quoted(&format!("{RUNS}/{program}.pid")))
}

/// Kills every program of the devices' folders that the pattern `folders` names.
pub fn kill_all(folders: &str) -> String {
    format!("{WORDS}\nleft=0\nfor file in {folders}/{RUNS}/*.pid; do end \"$file\" || left=1; done\n[ $left = 0 ]")
}

pub fn log(folder: &str, program: &str) -> String {
    format!("cat {}", quoted(&format!("{folder}/{LOGS}/{program}.log")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// The shells here that may stand for a phone's: any POSIX shell has to do.
    fn shells() -> Vec<&'static str> {
        let is_here = |shell: &&str| Command::new(shell).args(["-c", "true"]).status().is_ok();
        ["sh", "bash", "mksh"].into_iter().filter(is_here).collect()
    }

    fn run(shell: &str, script: &str) -> (i32, String) {
        let output = Command::new(shell).args(["-c", script]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn wait_for(shell: &str, folder: &str, expected: &Told) {
        let began = Instant::now();
        loop {
            let seen = told(&run(shell, &state(folder, "it's")).1).unwrap();
            if seen == *expected {
                return;
            }
            assert!(began.elapsed() < SOON, "{shell}: {seen:?}, {expected:?} expected");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn write_program(folder: &Path) {
        let path = folder.join("it's");
        std::fs::write(&path, "#!/bin/sh\necho \"$MOOD $1\"\n[ \"$1\" = 'a b' ] && exit 3\nsleep 600 &\nwait\n")
            .unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_program_is_started_known_and_killed_with_all_that_it_started() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let folder = here.path().to_str().unwrap();
            let launch = |argument: &str| Launch::of("it's", [argument]).with("MOOD", "joy's");
            assert_eq!(told(&run(shell, &state(folder, "it's")).1), Some(Told::Never));
            assert_eq!(run(shell, &start(folder, &launch("x"))).0, 3, "{shell}: it is not installed");
            write_program(here.path());

            assert_eq!(run(shell, &start(folder, &launch("a b"))), (0, String::new()), "{shell}");
            wait_for(shell, folder, &Told::Exit(3));
            assert_eq!(run(shell, &start(folder, &launch("x"))), (0, String::new()), "{shell}");
            wait_for(shell, folder, &Told::Running);
            assert_eq!(run(shell, &start(folder, &launch("x"))).0, 4, "{shell}: it runs");
            let group = std::fs::read_to_string(here.path().join(".run/it's.pid")).unwrap();
            let group = group.split(' ').next().unwrap().to_owned();
            let is_there = || Command::new("kill").args(["-0", "--", &format!("-{group}")]).output().unwrap();
            assert!(is_there().status.success());
            assert_eq!(run(shell, &kill(folder, "it's")).0, 0, "{shell}");
            assert!(!is_there().status.success(), "{shell}: the program's own child is gone as well");
            assert_eq!(told(&run(shell, &state(folder, "it's")).1), Some(Told::Gone), "{shell}");
            assert_eq!(run(shell, &log(folder, "it's")).1, "joy's a b\njoy's x\n", "{shell}");
        }
    }

    #[test]
    fn who_has_a_dead_leaders_number_is_left_alone() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let folder = here.path().to_str().unwrap();
            std::fs::create_dir(here.path().join(".run")).unwrap();
            // This very process, which started at another time.
            std::fs::write(here.path().join(".run/it's.pid"), format!("{} 1\n", std::process::id())).unwrap();
            assert_eq!(told(&run(shell, &state(folder, "it's")).1), Some(Told::Gone), "{shell}");
            assert_eq!(run(shell, &kill_all(folder)).0, 0, "{shell}");
        }
    }

    #[test]
    fn all_that_a_crashed_run_left_is_ended() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            for name in ["one", "two"] {
                let folder = here.path().join(name);
                std::fs::create_dir(&folder).unwrap();
                write_program(&folder);
                assert_eq!(run(shell, &start(folder.to_str().unwrap(), &Launch::of("it's", ["x"]))).0, 0, "{shell}");
            }
            assert_eq!(run(shell, &kill_all(&format!("{}/*", here.path().display()))).0, 0, "{shell}");
            for name in ["one", "two"] {
                wait_for(shell, here.path().join(name).to_str().unwrap(), &Told::Gone);
            }
        }
    }
}
