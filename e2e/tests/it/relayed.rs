//! Phones that cannot dial each other: one behind a NAT, and two with a wall between them, make a ring over the host.
//!
//! Needs root, `ip` and `nft`; nothing leaves the namespaces.

use std::process::Command;
use std::time::Duration;

use polyphony_e2e::shelf::wait_until;
use serde_json::Value;

use crate::joining::{HOST, Lab, SMALL};
use crate::manifests::{deployment, tiny_model};

/// Long enough for a plan to change under it.
const N_TOKENS: usize = 480;

/// A host that every machine here reaches.
fn host() -> Option<Lab> {
    if Command::new("nft").arg("--version").output().is_err() {
        polyphony_skip::skipped("there is no program nft here (on Debian: nftables)");
        return None;
    }
    let mut lab = Lab::build()?;
    let (data, hub) = (lab.path("data"), format!("{HOST}:0"));
    let ports = ["--api-address", "127.0.0.1:0", "--gateway-address", "127.0.0.1:0", "--hub-address", hub.as_str()];
    let terms = ["--data-dir", data.as_str(), "--advertise", "never"];
    let controller = lab.command("host", "polyphony-controller", &[&terms[..], &ports[..]].concat());
    lab.start("controller", controller);
    lab.wait_for("controller", "the controller is up");
    Some(lab)
}

/// A machine that reaches the host's own addresses alone: the host passes nothing on.
fn add_walled(lab: &mut Lab) {
    lab.add_machine("walled").unwrap();
    lab.connect(("host", "10.203.2.1"), ("walled", "10.203.2.2"));
    lab.on("walled", "ip route add default via 10.203.2.1").unwrap();
}

/// A machine whose router hides it: it dials whom it will, and nobody dials it.
fn add_hidden(lab: &mut Lab) {
    for name in ["router", "hidden"] {
        lab.add_machine(name).unwrap();
    }
    lab.connect(("host", "10.203.3.1"), ("router", "10.203.3.2"));
    lab.connect(("router", "10.204.0.1"), ("hidden", "10.204.0.2"));
    lab.on("hidden", "ip route add default via 10.204.0.1").unwrap();
    lab.on(
        "router",
        "ip route add default via 10.203.3.1; echo 1 > /proc/sys/net/ipv4/ip_forward
         nft add table ip nat
         nft 'add chain ip nat out { type nat hook postrouting priority 100 ; }'
         nft add rule ip nat out ip saddr 10.204.0.0/24 masquerade",
    )
    .unwrap();
}

fn join(lab: &mut Lab, machine: &str, name: &str) {
    let line = lab.line();
    let data = lab.path(&format!("agent-{name}"));
    let arguments = [line.hub.as_str(), "--ca-hash", &line.ca_hash, "--name", name, "--data-dir", &data];
    let command = lab.join(machine, &line, &[&arguments[..], &SMALL].concat());
    lab.start(name, command);
    lab.wait_for(name, "joined");
}

fn deploy(lab: &Lab, n_phones: usize) {
    let manifest = format!("{}---\n{}", tiny_model(), deployment("tiny", "tiny", n_phones, "f32", 512));
    std::fs::write(lab.path("manifest.yaml"), manifest).unwrap();
    lab.polyctl(&["apply", "-f", &lab.path("manifest.yaml")]).unwrap().ok().unwrap();
    available(lab);
}

fn available(lab: &Lab) {
    let wait = ["wait", "--for=condition=Available", "inferencedeployment/tiny", "--timeout=60s"];
    let waited = lab.polyctl(&wait).unwrap();
    let story = || lab.polyctl(&["describe", "inferencedeployment", "tiny"]).unwrap().stdout;
    assert_eq!(waited.code, 0, "{waited:?}\n{}\n{}", story(), lab.log("controller"));
}

fn tokens(lab: &Lab) -> Value {
    let answer = lab.complete_with("tiny", N_TOKENS);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let said: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}\n{}", lab.log("controller")));
    let tokens = said["choices"][0]["token_ids"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(N_TOKENS), "{answer}");
    tokens
}

fn metric(lab: &Lab, name: &str) -> f64 {
    let said = lab.ask("metrics", "GET /metrics HTTP/1.1\r\n", "");
    let values = said.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[test]
fn a_phone_behind_a_nat_and_two_with_a_wall_between_them_serve_a_ring_of_three() {
    let Some(mut direct) = host() else { return };
    for name in ["one", "two", "three"] {
        join(&mut direct, "host", name);
    }
    deploy(&direct, 3);
    let expected = tokens(&direct);
    assert_eq!(metric(&direct, "polyphony_relay_bytes_total"), 0.0, "who can dial does");
    drop(direct);

    let mut lab = host().unwrap();
    add_walled(&mut lab);
    add_hidden(&mut lab);
    for (machine, name) in [("host", "near"), ("walled", "walled"), ("hidden", "hidden")] {
        join(&mut lab, machine, name);
    }
    deploy(&lab, 3);
    assert_eq!(tokens(&lab), expected);
    assert!(metric(&lab, "polyphony_relay_bytes_total") > 0.0 && metric(&lab, "polyphony_relay_ways") >= 1.0);
    let story = lab.polyctl(&["describe", "inferencedeployment", "tiny"]).unwrap().ok().unwrap().stdout;
    let (_, hops) = story.split_once("Over The Hub:").unwrap_or_else(|| panic!("{story}"));
    let hops: Vec<Vec<&str>> = hops
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let is_led = |from: &str, to: &str| hops.iter().any(|hop| hop.get(1) == Some(&from) && hop.get(2) == Some(&to));
    assert!(is_led("walled", "hidden") || is_led("hidden", "walled"), "{story}");
    // The router lets out whoever it hides.
    assert!(!is_led("hidden", "near") && !is_led("walled", "near") && !is_led("near", "walled"), "{story}");
    assert!(hops.iter().all(|hop| hop.len() > 3), "each says why:\n{story}");
    let links = lab.polyctl(&["describe", "phone", "hidden"]).unwrap().ok().unwrap().stdout;
    let link = |peer: &str| links.lines().find(|line| line.trim_start().starts_with(peer)).unwrap_or_default();
    assert!(
        link("walled").contains("over the hub") && link("near").contains("direct"),
        "{links}\n{story}\n{}",
        lab.log("hidden")
    );

    // Each can be killed and comes back to the same ring.
    lab.end("hidden");
    let again = ["run", "--data-dir", &lab.path("agent-hidden")];
    let command = lab.command("hidden", "polyphony-agent", &again);
    lab.start("hidden-again", command);
    lab.wait_for("hidden-again", "joined");
    wait_until("the ring to be whole again", Duration::from_secs(60), || {
        Ok(lab.complete("tiny").starts_with("HTTP/1.1 200").then_some(()))
    })
    .unwrap();
    assert_eq!(tokens(&lab), expected);
}

#[test]
fn a_session_moves_with_its_cache_to_a_phone_that_reaches_the_old_one_over_the_host_alone() {
    let Some(mut lab) = host() else { return };
    add_walled(&mut lab);
    add_hidden(&mut lab);
    for (machine, name) in [("host", "near"), ("hidden", "hidden")] {
        join(&mut lab, machine, name);
    }
    deploy(&lab, 2);
    let expected = tokens(&lab);
    join(&mut lab, "walled", "walled");
    wait_until("the way between the two to be measured", Duration::from_secs(60), || {
        let links = lab.polyctl(&["describe", "phone", "walled"])?.ok()?.stdout;
        Ok(links.contains("over the hub").then_some(()))
    })
    .unwrap();
    let (moved, replayed) = ("polyphony_hand_over_seconds_count", "polyphony_replays_total");
    let before = (metric(&lab, moved), metric(&lab, replayed));
    let arguments = ["--data-dir", &lab.path("data"), "drain", "hidden"];
    let drain = lab.command("host", "polyctl", &arguments);
    lab.start("drain", drain);
    // Until the plan has changed under an answer.
    let has_moved = (0..200).any(|_| {
        assert_eq!(tokens(&lab), expected);
        metric(&lab, moved) > before.0
    });
    let story = || lab.polyctl(&["describe", "inferencedeployment", "tiny"]).unwrap().stdout;
    assert!(has_moved, "no session moved:\n{}\n{}", lab.log("drain"), story());
    assert_eq!(metric(&lab, replayed), before.1, "{}", lab.log("walled"));
    wait_until("the generation before to be gone", Duration::from_secs(30), || {
        let listed = lab.polyctl(&["get", "segmentplacements", "-o", "jsonpath={.items[*].spec.phone}"])?.ok()?.stdout;
        Ok((listed.contains("walled") && !listed.contains("hidden")).then_some(()))
    })
    .unwrap();
    assert_eq!(tokens(&lab), expected);
}
