//! Scripts: what a device's shell is asked to do with programs. Pure words, for any POSIX shell with `setsid`, `sleep` and `/proc`.
//!
//! A program runs in a session of its own, whose leader writes down its number, when it started and in which boot, and at the end how the program ended. So it
//! outlives the connection that started it, is known again over another one, and is never taken for a process that has its number later. It runs as long as
//! anything of its session does: a leader that was killed alone has left it behind.

use crate::Launch;

/// `this_boot`: a word for it. Where the first process can be seen, with its start: namespaces that start anew are of the same boot of the kernel.
/// `leads FILE`: does the leader that is written there still run? Its number is in `$pid` then, and its group's.
/// `is_left FILE`: where it does not, does anything of its session run? The same number.
/// `end FILE`: kills its whole group, and waits until it is gone.
const WORDS: &str = r#"this_boot() {
    stat=
    read -r id 2>/dev/null </proc/sys/kernel/random/boot_id || return 0
    read -r stat 2>/dev/null </proc/1/stat
    set -- ${stat##*) }
    echo "$id-${20}"
}
leads() {
    read -r pid began boot 2>/dev/null <"$1" || return 1
    read -r stat 2>/dev/null <"/proc/$pid/stat" || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] && [ "$1" != X ] && [ "${20}" = "$began" ]
}
is_left() {
    read -r pid began boot 2>/dev/null <"$1" || return 1
    # A number that a group has is given to nobody else.
    if read -r stat 2>/dev/null <"/proc/$pid/stat"; then
        set -- ${stat##*) }
        [ "${20}" = "$began" ] || return 1
    else
        [ -n "$boot" ] && [ "$boot" = "$(this_boot)" ] || return 1
    fi
    for each in /proc/[0-9]*/stat; do
        read -r stat 2>/dev/null <"$each" || continue
        set -- ${stat##*) }
        [ "$3 $4" != "$pid $pid" ] || [ "$1" = Z ] || [ "$1" = X ] || return 0
    done
    return 1
}
end() {
    leads "$1" || is_left "$1" || return 0
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
        "boot=$1
read -r stat </proc/$$/stat
set -- ${{stat##*) }}
echo \"$$ ${{20}} $boot\" >{pid}.new && mv {pid}.new {pid}
NO_COLOR=1 {environment}./{program}{arguments}
echo $? >{exit}.new && mv {exit}.new {exit}"
    );
    format!(
        "{WORDS}
cd {} && [ -f ./{program} ] || exit 3
leads {pid} && exit 4
end {pid} || {{ echo 'what an earlier run of it left does not end'; exit 5; }}
mkdir -p {RUNS} {LOGS} && rm -f {pid} {exit} || exit 5
setsid sh -c {} leader \"$(this_boot)\" </dev/null >>{log} 2>&1 &
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
if leads {pid}; then echo running
elif [ -f {exit} ]; then echo exit $(cat {exit})
elif is_left {pid}; then echo running
else echo gone; fi",
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

/// Kills every program of the devices' folders that the pattern `folders` names. Fails where one is left, of which the records are to be kept then: nobody would
/// know it without.
pub fn kill_all(folders: &str) -> String {
    format!(
        "{WORDS}
left=0
for file in {folders}/{RUNS}/*.pid; do end \"$file\" || {{ left=1; echo \"the processes of $pid do not end: restart the device\" >&2; }}; done
[ $left = 0 ]"
    )
}

/// Kills every program of the folders that the pattern `programs` names, and then removes `folder`, quoted, with their records. Where one is left, all stays.
pub fn remove(folder: &str, programs: &str) -> String {
    format!("{}\n[ $? = 0 ] && rm -rf {folder}", kill_all(programs))
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

    /// The `turn`th start in a folder. What the program's leader had written of itself when it was killed alone.
    fn start_and_lose_leader(shell: &str, folder: &str, turn: usize) -> Vec<String> {
        assert_eq!(run(shell, &start(folder, &Launch::of("it's", ["x"]))), (0, String::new()), "{shell}");
        let began = Instant::now();
        // Before that there may be nothing to be left.
        while run(shell, &log(folder, "it's")).1.lines().count() < turn {
            assert!(began.elapsed() < SOON, "{shell}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let written = std::fs::read_to_string(Path::new(folder).join(".run/it's.pid")).unwrap();
        let words: Vec<String> = written.split_whitespace().map(str::to_owned).collect();
        assert!(Command::new("kill").args(["-9", &words[0]]).status().unwrap().success(), "{shell}");
        words
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
    fn what_a_dead_leader_left_behind_runs_and_is_killed_as_well() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let folder = here.path().to_str().unwrap();
            write_program(here.path());
            let lose_leader = |turn: usize| {
                let words = start_and_lose_leader(shell, folder, turn);
                wait_for(shell, folder, &Told::Running);
                words[0].clone()
            };
            let first = lose_leader(1);
            // The next start ends what is left of the one before.
            let second = lose_leader(2);
            assert_eq!(run(shell, &kill_all(folder)).0, 0, "{shell}");
            wait_for(shell, folder, &Told::Gone);
            for group in [first, second] {
                let is_there = Command::new("kill").args(["-0", "--", &format!("-{group}")]).output().unwrap();
                assert!(!is_there.status.success(), "{shell}: {group}");
            }
        }
    }

    #[test]
    fn a_group_of_another_boot_that_has_a_dead_leaders_number_is_left_alone() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let folder = here.path().to_str().unwrap();
            write_program(here.path());
            let words = start_and_lose_leader(shell, folder, 1);
            let [leader, began, boot] = words.as_slice() else { panic!("{shell}: {words:?}") };
            let file = here.path().join(".run/it's.pid");
            // Whoever starts the leader may not have looked yet.
            let waited = Instant::now();
            while Path::new(&format!("/proc/{leader}")).exists() {
                assert!(waited.elapsed() < SOON, "{shell}");
                std::thread::sleep(Duration::from_millis(20));
            }
            for other in [format!("{leader} {began} boot-of-before\n"), format!("{leader} {began}\n")] {
                std::fs::write(&file, other).unwrap();
                assert_eq!(told(&run(shell, &state(folder, "it's")).1), Some(Told::Gone), "{shell}");
            }
            std::fs::write(&file, format!("{leader} {began} {boot}\n")).unwrap();
            assert_eq!(run(shell, &kill_all(folder)).0, 0, "{shell}");
        }
    }

    #[test]
    fn a_program_that_does_not_end_keeps_its_records() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let folder = here.path().join("folder");
            std::fs::create_dir(&folder).unwrap();
            write_program(&folder);
            let folder = folder.to_str().unwrap();
            assert_eq!(run(shell, &start(folder, &Launch::of("it's", ["x"]))).0, 0, "{shell}");
            // Neither kills nor waits.
            let in_vain = format!("kill() {{ :; }}\nsleep() {{ :; }}\n{}", remove(folder, folder));
            assert_eq!(run(shell, &in_vain).0, 1, "{shell}");
            assert_eq!(told(&run(shell, &state(folder, "it's")).1), Some(Told::Running), "{shell}");
            assert_eq!(run(shell, &remove(folder, folder)).0, 0, "{shell}");
            assert!(!Path::new(folder).exists(), "{shell}");
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
