//! `polyctl farm`: devices that adb lists become phones of a control plane by one command, and are nobody's again by another.
//!
//! People's devices may have a farm of their owner's, which is left alone, as are ways that others have laid: a test has farms of its own names.

use std::collections::BTreeSet;
use std::time::Duration;

use polyphony_e2e::shelf::{Said, Shelf, wait_until};
use polyphony_farm::adb::Adb;

use super::cluster::{is, serials};

/// Where `polyctl farm` puts all that it puts on a device.
const FOLDER: &str = "/data/local/tmp/polyphony-shelf";
/// What farms of tests are called, and nobody else's.
const SHELF: &str = "e2e-shelf";
const ATTIC: &str = "e2e-attic";
const SOON: Duration = Duration::from_secs(30);

/// A control plane without phones, and a file of a farm.
struct Farm {
    shelf: Shelf,
    serials: Vec<String>,
}

// === impl Farm ===

impl Farm {
    fn new(serials: &[String]) -> Self {
        let mut farm = Self { shelf: Shelf::planned("cpu", 0, "64Mi").unwrap(), serials: serials.to_vec() };
        farm.clear_leftovers();
        for serial in serials {
            let owner = owner(serial);
            assert_eq!(
                owner, "",
                "{serial} is of a farm that is not a test's: `polyctl farm down` with its file first"
            );
        }
        farm.write(SHELF, &[]);
        farm
    }

    /// What a run left that was killed: its control plane is gone, and nobody else clears its devices.
    fn clear_leftovers(&mut self) {
        let is_a_tests =
            |serial: &String| [SHELF, ATTIC].contains(&owner(serial).split(' ').next().unwrap_or_default());
        let left: Vec<String> = self.serials.iter().filter(|serial| is_a_tests(serial)).cloned().collect();
        if !left.is_empty() {
            let all = std::mem::replace(&mut self.serials, left);
            self.write(SHELF, &[]);
            self.polyctl_with("down", &["--force"]).ok().unwrap();
            self.serials = all;
        }
    }

    /// The file, with devices beside its own.
    fn write(&self, name: &str, more: &[&str]) {
        let test = std::env::current_exe().unwrap();
        let builds = test.ancestors().nth(3).unwrap().join("android");
        let phone = |(idx, serial): (usize, &String)| format!("  - {{serial: \"{serial}\", name: {}}}\n", phone(idx));
        let devices: String = self.serials.iter().enumerate().map(phone).collect();
        let more: String = more.iter().map(|serial| format!("  - {{serial: {serial}}}\n")).collect();
        let program = builds.join("{abi}/polyphony-agent");
        let text = format!(
            "apiVersion: polyphony.dev/v1alpha1\nkind: Farm\nmetadata: {{name: {name}}}\nspec:\n  devices:\n{devices}{more}  \
             agent: {{program: '{}', memory: 64Mi, backend: cpu, threads: 1}}\n",
            program.display()
        );
        std::fs::write(self.shelf.data_dir().join("farm.yaml"), text).unwrap();
    }

    fn polyctl(&self, verb: &str) -> Said {
        self.polyctl_with(verb, &[])
    }

    fn polyctl_with(&self, verb: &str, flags: &[&str]) -> Said {
        let file = self.shelf.data_dir().join("farm.yaml");
        let file = file.to_string_lossy();
        self.shelf.polyctl(&[&["farm", verb, "-f", &*file], flags].concat()).unwrap()
    }

    /// The ways that the farm has to lay on each device, in adb's word.
    fn ways(&self) -> BTreeSet<String> {
        let endpoints = self.shelf.endpoints().unwrap();
        let port = |address: &String| address.trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
        [&endpoints.hub, &endpoints.weights].map(|address| format!("tcp:{}", port(address))).into()
    }

    /// What leads the agent of each device, by number and start: another one after each start.
    fn leaders(&self) -> Vec<String> {
        let leader = |serial: &String| shell(serial, &format!("cat {FOLDER}/home/.run/polyphony-agent.pid"));
        self.serials.iter().map(leader).collect()
    }

    fn is_ready(&self, idx: usize) -> bool {
        self.shelf.get(&format!("phone/{}", phone(idx))).is_ok_and(|phone| is(&phone, "Ready"))
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // Whatever a test did, the devices are the next one's.
        self.write(SHELF, &[]);
        let said = self.polyctl("down");
        if said.code != 0 {
            eprintln!("the farm was not taken down: {}{}", said.stdout, said.stderr);
        }
    }
}

fn phone(idx: usize) -> String {
    format!("farm-{}", idx + 1)
}

fn adb(serial: &str, words: &[&str]) -> String {
    let adb = Adb::from_environment();
    adb.call(serial, words, adb.patience.call).unwrap().trim().to_owned()
}

/// What the device's shell says, asked past polyctl. How the line ends does not matter.
fn shell(serial: &str, line: &str) -> String {
    adb(serial, &["shell", "-n", &format!("{line}; true")])
}

/// Whose farm's it is, if any's.
fn owner(serial: &str) -> String {
    shell(serial, &format!("cat {FOLDER}/.owner 2>/dev/null"))
}

/// Whatever leads from the device to this machine, in adb's words.
fn laid(serial: &str) -> BTreeSet<String> {
    adb(serial, &["reverse", "--list"]).split_whitespace().map(str::to_owned).collect()
}

fn lines(said: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort_unstable();
    lines
}

fn each(n: usize, what: &str) -> Vec<String> {
    (0..n).map(|idx| format!("{} {what}", phone(idx))).collect()
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn a_farm_is_up_stays_up_is_mended_and_leaves_nothing() {
    let (_guard, serials) = serials().await;
    let farm = Farm::new(&serials[..serials.len().min(2)]);
    let n = farm.serials.len();
    let said = farm.polyctl("up");
    assert!(said.code == 1 && said.stderr.contains("polyctl up --phones 0"), "no host runs yet: {said:?}");
    farm.shelf.start().unwrap();

    let up = farm.polyctl("up").ok().unwrap().stdout;
    for (idx, line) in each(n, "is joined").into_iter().enumerate() {
        assert!(lines(&up).contains(&line) && farm.is_ready(idx), "{up}");
    }
    let leaders = farm.leaders();
    let again = farm.polyctl("up").ok().unwrap().stdout;
    assert_eq!(lines(&again), each(n, "runs and is joined already"));
    assert_eq!(farm.leaders(), leaders);
    let status = farm.polyctl("status").ok().unwrap().stdout;
    assert_eq!(status.matches(" Joined ").count(), n, "{status}");

    // One agent is lost, and all ways of the others.
    let leader = leaders[0].split(' ').next().unwrap();
    shell(&farm.serials[0], &format!("kill -9 -{leader}"));
    let first_ways = farm.ways();
    for serial in &farm.serials[1..] {
        for way in &first_ways {
            adb(serial, &["reverse", "--remove", way]);
        }
    }
    wait_until("the host to notice", SOON, || Ok((!farm.is_ready(0)).then_some(()))).unwrap();
    let status = farm.polyctl("status").ok().unwrap().stdout;
    assert!(status.contains(" Ended ") && status.contains("its agent ended (killed"), "{status}");
    assert_eq!(status.matches("its ways to this machine are gone: `polyctl farm up`").count(), n - 1, "{status}");
    let mended = farm.polyctl("up").ok().unwrap().stdout;
    assert!(mended.contains("starts its agent\n"), "{mended}");
    let after = farm.leaders();
    assert!(after[0] != leaders[0] && after[1..] == leaders[1..], "{leaders:?}, {after:?}");
    assert!((0..n).all(|idx| farm.is_ready(idx)));

    // A host that was started anew serves weights at another port.
    farm.shelf.polyctl(&["down"]).unwrap().ok().unwrap();
    farm.shelf.start().unwrap();
    farm.polyctl("up").ok().unwrap();
    assert_eq!(farm.leaders(), after, "agents go on over new ways");
    let ways: BTreeSet<String> = first_ways.into_iter().chain(farm.ways()).collect();

    let down = farm.polyctl("down").ok().unwrap().stdout;
    assert_eq!(down.matches("nothing of it is left on its device").count(), n, "{down}");
    for (serial, leader) in farm.serials.iter().zip(&after) {
        assert_eq!(shell(serial, &format!("ls -d {FOLDER} 2>/dev/null; echo asked")), "asked");
        assert!(laid(serial).is_disjoint(&ways), "{ways:?}: {:?}", laid(serial));
        let leader = leader.split(' ').next().unwrap();
        assert_eq!(shell(serial, &format!("kill -0 -{leader} 2>/dev/null || echo gone")), "gone");
    }
    let again = farm.polyctl("down").ok().unwrap().stdout;
    assert_eq!(lines(&again), each(n, "has nothing on its device"));
}

#[tokio::test]
#[ignore = "needs devices that adb lists: `make e2e-android`"]
async fn a_device_that_is_away_or_another_farms_keeps_no_other_from_being_joined() {
    let (_guard, serials) = serials().await;
    let farm = Farm::new(&serials[..1]);
    farm.shelf.start().unwrap();
    farm.write(SHELF, &["NOBODY"]);
    let said = farm.polyctl("up");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(lines(&said.stdout).contains(&each(1, "is joined")[0]) && farm.is_ready(0), "{said:?}");
    assert!(said.stderr.contains("phone-nobody (NOBODY): adb lists no device NOBODY"), "{said:?}");
    assert!(said.stderr.contains("1 of 2 phones did not come up"), "{said:?}");
    let status = farm.polyctl("status").ok().unwrap().stdout;
    assert!(status.contains("not listed") && status.contains("is it plugged in"), "{status}");

    let leaders = farm.leaders();
    farm.write(ATTIC, &[]);
    let said = farm.polyctl("up");
    assert!(said.code == 1 && said.stderr.contains(&format!("it is of the farm {SHELF}")), "{said:?}");
    let said = farm.polyctl("down").ok().unwrap();
    assert!(said.stdout.contains(&format!("is left alone: its device is of the farm {SHELF}")), "{said:?}");
    assert_eq!(farm.leaders(), leaders);

    // A phone that was deleted is shut out, and joins anew.
    farm.write(SHELF, &[]);
    farm.shelf.polyctl(&["delete", "phone", &phone(0)]).unwrap().ok().unwrap();
    wait_until("the phone to be gone", SOON, || Ok((!farm.is_ready(0)).then_some(()))).unwrap();
    let said = farm.polyctl("up").ok().unwrap().stdout;
    assert!(said.contains("since its Phone is gone") && farm.is_ready(0), "{said}");
}
