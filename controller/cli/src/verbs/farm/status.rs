//! `farm status`: a line a device, with what it is, how adb is with it, how its agent fares, and what to do where that is not as it should be.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use futures::{StreamExt, stream};
use polyphony_adb::script::Told;
use polyphony_adb::{Adb, Choice, Standing};
use serde::Serialize;
use serde_json::Value;

use super::control_plane::ControlPlane;
use super::file::Farm;
use super::host::{Host, cluster_id};
use super::member::{Member, Owner, Seen, ended, find};
use super::title::recorded_key;
use super::twins::{same_as, twins};
use super::{AT_ONCE, FileFlag, blocking};
use crate::connection::ClusterFlags;
use crate::table::align;
use crate::verbs::up::readiness::{fetch_phones, readiness};

const HEADER: [&str; 8] = ["SERIAL", "PHONE", "MODEL", "ABI", "API", "ADB", "AGENT", "VERDICT"];

/// Show the devices of a file: what each is, how adb is with it, how its agent fares, and what to do
#[derive(Debug, Args)]
pub(super) struct FarmStatus {
    #[command(flatten)]
    file: FileFlag,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What is told of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    serial: String,
    phone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Its favourite.
    #[serde(skip_serializing_if = "Option::is_none")]
    abi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_level: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
    /// In adb's word.
    adb: String,
    agent: Agent,
    /// What is wrong and what to do; none where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<String>,
}

/// How an agent fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, strum::IntoStaticStr)]
enum Agent {
    /// There is none of this farm's, or the device does not say.
    #[default]
    None,
    Ended,
    /// It runs, and the API has not heard of it.
    Running,
    Joined,
}

/// The control plane, as far as there is one.
enum Answers {
    /// Phones and their Leases.
    Known(Vec<Value>, Vec<Value>),
    /// Why nothing is known.
    Nothing(String),
}

// === impl FarmStatus ===

impl FarmStatus {
    pub(super) async fn run(self, cluster: ClusterFlags) -> anyhow::Result<ExitCode> {
        let farm = Farm::read(&self.file.file)?;
        let plane = ControlPlane::of(cluster).await?;
        let host = Host::of(&plane.folder);
        let (id, answers) = match &host {
            Ok(_) => ask(&plane).await.unwrap_or_else(|error| (None, Answers::Nothing(format!("{error:#}")))),
            Err(error) => (None, Answers::Nothing(error.to_string())),
        };
        // What is not known is no reason to show nothing.
        let id = match id {
            None => plane.id().await.unwrap_or_default(),
            id => id,
        };
        let (owner, ports) = (Owner::new(&farm.name, id), host.as_ref().ok().map(Host::ports));
        let adb = Adb::from_environment();
        let choice = farm.choice.clone();
        let members = blocking(move || find(&farm, &adb)).await??;
        let twins = twins(&members).await?;
        let rows = stream::iter(&members).map(async |member| {
            let (own, ports) = (member.clone(), ports.clone());
            let (seen, said) = blocking(move || {
                let mut seen = Seen::default();
                let said = own.look(ports.as_ref(), &mut seen).map_err(|error| error.to_string());
                (seen, said)
            })
            .await?;
            let said = match twins.get(&member.serial) {
                Some(first) => Err(same_as(first)),
                None => said,
            };
            anyhow::Ok(row(member, seen, said, &choice, &owner, &answers))
        });
        let rows: Vec<anyhow::Result<Row>> = rows.buffered(AT_ONCE).collect().await;
        let rows = rows.into_iter().collect::<anyhow::Result<Vec<Row>>>()?;
        if self.json {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&rows)?)?;
        } else if rows.is_empty() {
            writeln!(io::stderr(), "adb lists no device: plug one in with USB debugging on, or `adb connect` it")?;
        } else {
            io::stdout().write_all(table(&rows).as_bytes())?;
        }
        if let Answers::Nothing(why) = &answers
            && !self.json
        {
            writeln!(io::stderr(), "note: {why}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(plane: &ControlPlane) -> anyhow::Result<(Option<String>, Answers)> {
    let server = plane.server().await?;
    let (phones, leases) = fetch_phones(&server).await?;
    Ok((Some(cluster_id(&server).await?), Answers::Known(phones, leases)))
}

/// `said` is the verdict of a device that did not answer all that was asked, or of whom another line tells.
fn row(
    member: &Member,
    seen: Seen,
    said: Result<(), String>,
    choice: &Choice,
    owner: &Owner,
    answers: &Answers,
) -> Row {
    let (agent, verdict) = match said {
        Err(verdict) => (Agent::None, Some(verdict)),
        Ok(()) => judged(&member.phone, &seen, choice, owner, answers),
    };
    let traits = seen.traits;
    Row {
        serial: member.serial.clone(),
        phone: member.phone.clone(),
        model: traits.as_ref().map(|traits| traits.model.clone()),
        abi: traits.as_ref().and_then(|traits| traits.abis.first().cloned()),
        api_level: traits.as_ref().map(|traits| traits.api_level),
        memory_bytes: traits.as_ref().map(|traits| traits.memory_bytes),
        adb: word(member.standing.as_ref()).to_owned(),
        agent,
        verdict,
    }
}

/// How the agent of a device that answers fares, and what to do about it.
fn judged(phone: &str, seen: &Seen, choice: &Choice, owner: &Owner, answers: &Answers) -> (Agent, Option<String>) {
    let raise = |why: &str| Some(format!("{why}: `polyctl farm up`"));
    let told = match &seen.owner {
        Some(other) if !other.may_be(owner) => return (Agent::None, Some(format!("it is of {other}"))),
        Some(_) => seen.told.as_ref(),
        None => None,
    };
    let objection = seen.traits.as_ref().and_then(|traits| choice.objection(traits));
    match told {
        None | Some(Told::Never) => match objection {
            Some(why) => (Agent::None, Some(format!("it does not fit spec.selector: {why}"))),
            None => (Agent::None, raise("its agent was not started")),
        },
        Some(Told::Running) => match answers {
            Answers::Nothing(_) => (Agent::Running, Some("nothing is known of what the control plane sees".to_owned())),
            Answers::Known(phones, leases) => match readiness(phone, phones, leases, None) {
                Ok(()) if !is_by(phones, phone, seen.key.as_deref()) => {
                    (Agent::Running, raise("its Phone is another device's"))
                }
                Ok(()) if seen.is_led => (Agent::Joined, None),
                Ok(()) => (Agent::Joined, raise("its ways to this machine are gone")),
                Err(_) if !seen.is_led => (Agent::Running, raise("its ways to this machine are gone")),
                Err(why) => (Agent::Running, Some(why)),
            },
        },
        Some(told) => {
            let last = seen.last_word.iter().map(|word| format!(", having said {word:?}")).next().unwrap_or_default();
            (Agent::Ended, raise(&format!("its agent ended ({}){last}", ended(told))))
        }
    }
}

/// Whether the Phone is the device's of that key.
fn is_by(phones: &[Value], phone: &str, key: Option<&str>) -> bool {
    let found = phones.iter().find(|one| one["metadata"]["name"] == phone);
    found.is_some_and(|found| recorded_key(found) == key)
}

fn word(standing: Option<&Standing>) -> &str {
    match standing {
        None => "not listed",
        Some(Standing::Ready) => "device",
        Some(Standing::Offline) => "offline",
        Some(Standing::Unauthorized) => "unauthorized",
        Some(Standing::NoPermission) => "no permissions",
        Some(Standing::Other(state)) => state,
    }
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADER.map(str::to_owned).to_vec()];
    let or_none = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    for row in rows {
        let agent: &'static str = row.agent.into();
        lines.push(vec![
            row.serial.clone(),
            row.phone.clone(),
            or_none(row.model.clone()),
            or_none(row.abi.clone()),
            or_none(row.api_level.map(|level| level.to_string())),
            row.adb.clone(),
            if row.agent == Agent::None { "-".to_owned() } else { agent.to_owned() },
            row.verdict.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    align(&lines, &mut Vec::new(), 6, 3)
}

#[cfg(test)]
mod tests {
    use polyphony_adb::Traits;
    use serde_json::json;

    use super::*;

    fn seen(told: Option<Told>) -> Seen {
        let traits = Traits {
            model: "Pixel 7".into(),
            api_level: 34,
            abis: vec!["arm64-v8a".into()],
            memory_bytes: 8 << 30,
            ..Traits::default()
        };
        let owner = told.as_ref().map(|_| Owner::new("shelf", Some("u-1".into())));
        Seen { traits: Some(traits), owner, told, key: Some("sha256:a".into()), is_led: true, last_word: None }
    }

    fn ready() -> Answers {
        let phone = json!({"metadata": {"name": "kitchen"}, "status": {"publicKey": "sha256:a", "conditions": [{"type": "Ready", "status": "True"}]}});
        Answers::Known(vec![phone], Vec::new())
    }

    #[test]
    fn an_agent_that_is_not_as_it_should_be_has_its_remedy() {
        let (any, owner) = (Choice::default(), Owner::new("shelf", Some("u-1".into())));
        let nobody = || Answers::Known(Vec::new(), Vec::new());
        let (silent, gone) =
            (|| Answers::Nothing("no controller runs".into()), "its ways to this machine are gone: `polyctl farm up`");
        let elsewhere = Seen { owner: Some(Owner::new("attic", None)), ..seen(Some(Told::Running)) };
        let unled = Seen { is_led: false, ..seen(Some(Told::Running)) };
        let shut_out = Seen { key: Some("sha256:b".into()), ..seen(Some(Told::Running)) };
        let said = Seen { last_word: Some("no room".into()), ..seen(Some(Told::Exit(1))) };
        let small = Choice { least_memory_bytes: Some(16 << 30), ..Choice::default() };
        for (seen, choice, answers, agent, verdict) in [
            (seen(Some(Told::Running)), &any, ready(), Agent::Joined, None),
            (shut_out, &any, ready(), Agent::Running, Some("its Phone is another device's: `polyctl farm up`")),
            (unled.clone(), &any, ready(), Agent::Joined, Some(gone)),
            (unled, &any, nobody(), Agent::Running, Some(gone)),
            (seen(Some(Told::Running)), &any, nobody(), Agent::Running, Some("it has not joined")),
            (
                seen(Some(Told::Running)),
                &any,
                silent(),
                Agent::Running,
                Some("nothing is known of what the control plane sees"),
            ),
            (
                said,
                &any,
                ready(),
                Agent::Ended,
                Some("its agent ended (exit status: 1), having said \"no room\": `polyctl farm up`"),
            ),
            (
                seen(Some(Told::Gone)),
                &any,
                ready(),
                Agent::Ended,
                Some("its agent ended (killed, or gone with a restart of the device): `polyctl farm up`"),
            ),
            (seen(None), &any, ready(), Agent::None, Some("its agent was not started: `polyctl farm up`")),
            (
                seen(None),
                &small,
                ready(),
                Agent::None,
                Some("it does not fit spec.selector: it has 8192 MiB of memory, 16384 or more are asked for"),
            ),
            (elsewhere, &any, ready(), Agent::None, Some("it is of the farm attic")),
        ] {
            let judged = judged("kitchen", &seen, choice, &owner, &answers);
            assert_eq!(judged, (agent, verdict.map(str::to_owned)), "{seen:?}");
        }
    }

    #[test]
    fn a_device_is_a_line_whatever_is_known_of_it() {
        let joined = Row {
            serial: "A1".into(),
            phone: "kitchen".into(),
            model: Some("Pixel 7".into()),
            abi: Some("arm64-v8a".into()),
            api_level: Some(34),
            adb: "device".into(),
            agent: Agent::Joined,
            ..Row::default()
        };
        let away = Row {
            serial: "B2".into(),
            phone: "phone-b2".into(),
            adb: word(Some(&Standing::Unauthorized)).into(),
            verdict: Some("accept the question".into()),
            ..Row::default()
        };
        assert_eq!(
            table(&[joined, away]),
            "SERIAL   PHONE      MODEL     ABI         API   ADB            AGENT    VERDICT\n\
             A1       kitchen    Pixel 7   arm64-v8a   34    device         Joined   -\n\
             B2       phone-b2   -         -           -     unauthorized   -        accept the question\n"
        );
    }
}
