//! Turns: what a device's shell is asked to do with claims, one run at a time. Pure words, for any POSIX shell.
//!
//! Nothing of a turn waits for the machine that asks, so that it is over in a moment, and one of an earlier boot was left.

use polyphony_adb::script::{kill_all, quoted};

use super::{BASE, OWNER, STORE};

/// `take_turn` and `end_turn`: what is between is done by one at a time, on this device.
const TURNS: &str = r#"turn=$base.turn-$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
take_turn() {
    trap '' HUP INT PIPE TERM
    n=0
    until mkdir "$turn" 2>/dev/null; do
        n=$((n + 1))
        [ $n -le 100 ] || { echo "$turn has been there for 5 s, and is in the way: remove it" >&2; exit 1; }
        sleep 0.05
    done
    for old in "$base".turn-*; do [ "$old" = "$turn" ] || rmdir "$old"; done
}
end_turn() { rmdir "$turn"; }"#;
/// Printed where it was done, and where another claim was found than expected.
const DONE: &str = "done";
const ANOTHERS: &str = "another's";

/// The claim that is on the device, or nothing.
pub(super) fn claimed() -> String {
    format!("cat {BASE}/{OWNER} 2>/dev/null; true")
}

/// Writes a claim where [`claimed`] is still what was `found`. Of two that come at once, one has written; [`is_done`] tells who.
pub(super) fn claim(found: &str, line: &str) -> String {
    let write = format!(
        "mkdir -p $base/{STORE} && echo {} >$base/{OWNER}.new && mv -f $base/{OWNER}.new $base/{OWNER}",
        quoted(line)
    );
    in_turn(found, &write)
}

/// Ends every program that was left on the device, and removes all but the claim. Where one does not end, nothing is removed by which it is known.
pub(super) fn clear() -> String {
    format!(
        "{}
[ $? = 0 ] || exit 1
status=0
for each in {BASE}/* {BASE}/.[!.]*; do
    [ $each = {BASE}/{OWNER} ] || rm -rf \"$each\" || status=1
done
rm -rf {BASE}.gone-* && mkdir -p {BASE}/{STORE} || status=1
[ $status = 0 ]",
        kill_all(&format!("{BASE}/*"))
    )
}

/// Removes the claim with the folder at once, where it is `line`, so that nobody finds it half removed.
pub(super) fn release(line: &str) -> String {
    format!("{}\nrm -rf $base.gone-$$", in_turn(line, "mv $base $base.gone-$$"))
}

pub(super) fn is_done(said: &str) -> bool {
    said.trim() == DONE
}

fn in_turn(found: &str, what: &str) -> String {
    format!(
        "base={BASE}
{TURNS}
take_turn
said={}
status=0
if [ \"$(cat $base/{OWNER} 2>/dev/null)\" = {} ]; then
    {what} && said={DONE} || status=1
fi
end_turn
[ $status = 0 ] || exit 1
echo \"$said\"",
        quoted(ANOTHERS),
        quoted(found),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    /// The shells here that may stand for a phone's: any POSIX shell has to do.
    fn shells() -> Vec<&'static str> {
        let is_here = |shell: &&str| Command::new(shell).args(["-c", "true"]).status().is_ok();
        ["sh", "bash", "mksh"].into_iter().filter(is_here).collect()
    }

    #[test]
    fn what_does_not_end_keeps_its_records() {
        let here = tempfile::tempdir().unwrap();
        let base = here.path().join("farm");
        let runs = base.join("phone-1/.run");
        std::fs::create_dir_all(&runs).unwrap();
        let mut left = Command::new("sleep").arg("600").spawn().unwrap();
        let began = crate::started::start_ticks(left.id()).unwrap();
        std::fs::write(runs.join("agent.pid"), format!("{} {began}\n", left.id())).unwrap();
        // Neither kills nor waits.
        let in_vain = format!("kill() {{ :; }}\nsleep() {{ :; }}\n{}", clear()).replace(BASE, base.to_str().unwrap());
        let output = Command::new("sh").args(["-c", &in_vain]).output().unwrap();
        left.kill().unwrap();
        left.wait().unwrap();
        assert!(!output.status.success() && runs.join("agent.pid").exists(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("the processes of {} do not end", left.id())), "{said}");
    }

    #[test]
    fn of_many_that_claim_at_once_one_has_it_and_only_who_has_it_gives_it_free() {
        for shell in shells() {
            let here = tempfile::tempdir().unwrap();
            let base = here.path().join("farm");
            let on_it = |script: &str| {
                let script = script.replace(BASE, base.to_str().unwrap());
                let output = Command::new(shell).args(["-c", &script]).output().unwrap();
                assert!(output.status.success(), "{shell}: {output:?}");
                String::from_utf8_lossy(&output.stdout).trim().to_owned()
            };
            std::fs::create_dir(format!("{}.turn-of-an-earlier-boot", base.display())).unwrap();
            for found in ["", "one 0"] {
                let claims: Vec<String> = std::thread::scope(|scope| {
                    let begun: Vec<_> =
                        (1..=8).map(|n| scope.spawn(move || on_it(&claim(found, &format!("one {n}"))))).collect();
                    begun.into_iter().map(|one| one.join().unwrap()).collect()
                });
                let count = |word: &str| claims.iter().filter(|said| *said == word).count();
                assert!(count(DONE) == 1 && count(ANOTHERS) == 7, "{shell}, {found:?}: {claims:?}");
                let owner = on_it(&claimed());
                assert_eq!(owner, format!("one {}", 1 + claims.iter().position(|said| is_done(said)).unwrap()));
                assert_eq!(on_it(&release("somebody")), ANOTHERS, "{shell}");
                assert_eq!(on_it(&claim(&owner, "one 0")), DONE, "{shell}");
            }
            std::fs::create_dir(base.join("left")).unwrap();
            assert_eq!(on_it(&clear()), "", "{shell}");
            assert!(!base.join("left").exists() && base.join(STORE).is_dir(), "{shell}");
            assert_eq!(on_it(&claimed()), "one 0", "{shell}");
            assert_eq!(on_it(&release("one 0")), DONE, "{shell}");
            assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "{shell}");
        }
    }
}
