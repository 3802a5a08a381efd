//! Other people's clients: the real kubectl, and the official openai package.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use polyphony_e2e::shelf::{Said, Shelf, cache_dir, real_model, run, wait_until};

use crate::manifests::{deployment, model, tiny_model};

fn kubectl(shelf: &Shelf) -> Option<impl Fn(&[&str]) -> Said> {
    let program = cache_dir().join("bin/kubectl");
    if !program.exists() {
        polyphony_skip::skipped(format_args!("no {}; `make setup-tests` fetches it", program.display()));
        return None;
    }
    let kubeconfig = shelf.kubeconfig();
    let home = shelf.data_dir().join("kubectl-home");
    Some(move |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env("KUBECONFIG", &kubeconfig).env("HOME", &home);
        run(command).unwrap()
    })
}

#[test]
fn the_real_kubectl_works_unchanged() {
    let shelf = Shelf::up(2, "64Mi").unwrap();
    let Some(kubectl) = kubectl(&shelf) else { return };
    let path = shelf.data_dir().join("talk.yaml");
    let manifest = format!("{}---\n{}", tiny_model(), deployment("talk", "tiny", 2, "f16", 128));
    std::fs::write(&path, &manifest).unwrap();
    let file = path.to_str().unwrap();

    let applied = kubectl(&["apply", "-f", file]).ok().unwrap().stdout;
    assert!(applied.contains("model.polyphony.dev/tiny created"), "{applied}");
    assert!(applied.contains("inferencedeployment.polyphony.dev/talk created"), "{applied}");
    kubectl(&["wait", "--for=condition=Available", "inferencedeployment/talk", "--timeout=60s"]).ok().unwrap();
    let unchanged = kubectl(&["apply", "-f", file]).ok().unwrap().stdout;
    assert!(unchanged.contains("inferencedeployment.polyphony.dev/talk unchanged"), "{unchanged}");

    let table = kubectl(&["get", "inferencedeployments"]).ok().unwrap().stdout;
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["NAME", "READY", "DESIRED", "MODEL", "PHONES", "TOK/S", "URL", "AGE"], "{table}");
    assert!(kubectl(&["get", "phones", "-o", "wide"]).ok().unwrap().stdout.contains("phone-2"));
    assert!(
        kubectl(&["get", "seg", "--field-selector", "spec.phone=phone-1"]).ok().unwrap().stdout.contains("phone-1")
    );

    let described = kubectl(&["describe", "inferencedeployment", "talk"]).ok().unwrap().stdout;
    for part in ["Name:", "Conditions:", "Events:", "Planned"] {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    assert!(kubectl(&["explain", "inferencedeployment.spec.placement"]).ok().unwrap().stdout.contains("minPhones"));
    assert!(
        kubectl(&["api-resources", "--api-group=polyphony.dev"]).ok().unwrap().stdout.contains("segmentplacements")
    );

    let unknown = manifest.replace("maxSessions", "maxSesions");
    std::fs::write(&path, unknown).unwrap();
    let refused = kubectl(&["apply", "-f", file]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("maxSesions"), "{}", refused.stderr);

    kubectl(&["scale", "inferencedeployment/talk", "--replicas=0"]).ok().unwrap();
    kubectl(&["wait", "--for=jsonpath={.status.readyReplicas}=0", "inferencedeployment/talk", "--timeout=60s"])
        .ok()
        .unwrap();
    kubectl(&["delete", "inferencedeployment", "talk", "--timeout=60s"]).ok().unwrap();
    let gone = kubectl(&["get", "inferencedeployment", "talk"]);
    assert!(gone.stderr.contains("NotFound"), "{}", gone.stderr);
}

#[test]
fn the_real_kubectl_comes_by_a_certificate_and_may_what_its_user_may() {
    let shelf = Shelf::up(1, "64Mi").unwrap();
    let Some(kubectl) = kubectl(&shelf) else { return };
    let path = shelf.data_dir().join("mia.kubeconfig");
    let create = ["user", "create", "mia", "--expires", "1h", "--out", path.to_str().unwrap()];
    let made = shelf.polyctl(&create).unwrap().ok().unwrap();
    assert!(made.stderr.contains("user mia is viewer for 60m"), "{}", made.stderr);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = shelf.polyctl(&create).unwrap();
    assert!(again.code != 0 && again.stderr.contains("--again"), "{again:?}");
    let mia = |arguments: &[&str]| kubectl(&[&["--kubeconfig", path.to_str().unwrap()], arguments].concat());
    let who = mia(&["auth", "whoami"]).ok().unwrap().stdout;
    assert!(who.contains("mia") && who.contains("polyphony:viewers"), "{who}");
    assert!(mia(&["get", "phones"]).ok().unwrap().stdout.contains("phone-1"));
    for refused in
        [&["get", "secrets", "-A"][..], &["delete", "phone", "phone-1"], &["label", "phone", "phone-1", "a=b"]]
    {
        let said = mia(refused);
        assert!(said.code != 0 && said.stderr.contains("Forbidden") && said.stderr.contains("mia"), "{said:?}");
    }
    for (verb, what, may) in [("list", "phones", "yes"), ("delete", "phones", "no"), ("get", "secrets", "no")] {
        assert!(mia(&["auth", "can-i", verb, what]).stdout.starts_with(may), "{verb} {what}");
    }
    assert_eq!(kubectl(&["auth", "can-i", "delete", "phones"]).stdout.trim(), "yes");
    let listed = shelf.polyctl(&["user", "list"]).unwrap().ok().unwrap().stdout;
    assert!(listed.lines().nth(1).is_some_and(|line| line.starts_with("mia ") && line.contains("viewer")), "{listed}");
    shelf.polyctl(&["user", "delete", "mia"]).unwrap().ok().unwrap();
    let shut_out = wait_until("mia to be shut out", Duration::from_secs(20), || {
        let said = mia(&["get", "phones"]);
        Ok((said.code != 0).then_some(said.stderr))
    });
    assert!(shut_out.as_ref().is_ok_and(|said| said.contains("logged in")), "{shut_out:?}");
}

#[test]
fn the_real_kubectl_watches() {
    let shelf = Shelf::up(1, "64Mi").unwrap();
    let Some(kubectl) = kubectl(&shelf) else { return };
    let mut watch = Command::new(cache_dir().join("bin/kubectl"))
        // A watch that shows nothing ends, and the test fails rather than hangs.
        .args(["get", "models", "-w", "--request-timeout=60s"])
        .env("KUBECONFIG", shelf.kubeconfig())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let path = shelf.data_dir().join("model.yaml");
    std::fs::write(&path, tiny_model()).unwrap();
    kubectl(&["apply", "-f", path.to_str().unwrap()]).ok().unwrap();
    let seen: Vec<String> = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .inspect(|line| println!("{line}"))
        .filter(|line| line.starts_with("tiny"))
        .take(2)
        .collect();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(seen.len(), 2, "created, then resolved");
    assert!(seen[1].contains("True") && seen[1].contains("llama"), "{seen:?}");
}

#[test]
fn the_openai_package_streams_a_chat() {
    let python = cache_dir().join("venv/bin/python");
    if !python.exists() {
        polyphony_skip::skipped(format_args!("no {}; `make setup-tests` fetches it", python.display()));
        return;
    }
    let Some(path) = real_model() else { return };
    let shelf = Shelf::up(2, "400Mi").unwrap();
    let manifest = format!("{}---\n{}", model("smollm2", &path), deployment("talk", "smollm2", 2, "f16", 256));
    shelf.apply(&manifest).unwrap().ok().unwrap();
    shelf.wait_available("talk").unwrap();
    let script = r#"
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none")
assert [model.id for model in client.models.list()] == ["talk"]
question = [{"role": "user", "content": "What is the capital of France?"}]
stream = client.chat.completions.create(model="talk", messages=question, temperature=0, max_tokens=16, stream=True,
                                        stream_options={"include_usage": True})
pieces, usage, reason = [], None, None
for chunk in stream:
    usage = chunk.usage or usage
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        reason = choice.finish_reason or reason
assert usage.completion_tokens > 0 and usage.prompt_tokens == 37, usage
assert reason in ("stop", "length"), reason
whole = client.chat.completions.create(model="talk", messages=question, temperature=0, max_tokens=16, logprobs=True)
assert whole.choices[0].message.content == "".join(pieces), (whole, pieces)
assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
try:
    client.chat.completions.create(model="talk", messages=question, extra_body={"guided_json": {}})
    raise SystemExit("a field that would change the answer was not refused")
except openai.BadRequestError as error:
    assert error.param == "guided_json", error
try:
    client.chat.completions.create(model="talk", messages=[{"role": "user", "content": "word " * 5000}])
    raise SystemExit("a prompt that does not fit was not refused")
except openai.BadRequestError as error:
    assert error.code == "context_length_exceeded" and "maximum context length is 256 tokens" in error.message, error
two = client.completions.create(model="talk", prompt=["One", "Two"], max_tokens=2, temperature=0)
assert [choice.index for choice in two.choices] == [0, 1], two
try:
    client.chat.completions.create(model="nobody", messages=question)
    raise SystemExit("an unknown model was not refused")
except openai.NotFoundError as error:
    assert error.code == "model_not_found", error
print(len(pieces), "".join(pieces))
"#;
    let mut command = Command::new(python);
    command.args(["-c", script, &shelf.endpoints().unwrap().gateway]);
    let said = run(command).unwrap().ok().unwrap();
    assert!(said.stdout.contains("Paris"), "{}", said.stdout);
    let pieces: usize = said.stdout.split_whitespace().next().unwrap().parse().unwrap();
    assert!(pieces > 3, "the answer came in {pieces} pieces");
}
