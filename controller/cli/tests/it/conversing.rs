//! A conversation with an endpoint that answers by the number of what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

use serde_json::Value;

use crate::polyctl;

/// Answers each chat request with `answer N`, or refuses what is said to be too much, and gives all of them at the end.
fn endpoint(n_requests: usize) -> (String, std::thread::JoinHandle<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for n in 1..=n_requests {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            asked.push(serde_json::from_slice::<Value>(&body).unwrap());
            let chunk = format!("data: {{\"choices\": [{{\"delta\": {{\"content\": \"answer {n}\"}}}}]}}\n\n");
            let answer = if String::from_utf8_lossy(&body).contains("too much") {
                let error = r#"{"error": {"message": "no room", "code": "context_length_exceeded"}}"#;
                format!("HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n{error}")
            } else {
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{chunk}data: [DONE]\n\n"
                )
            };
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (url, serving)
}

#[test]
fn a_conversation_remembers_until_it_is_told_to_forget() {
    let (url, serving) = endpoint(3);
    let home = tempfile::tempdir().unwrap();
    let input = home.path().join("input");
    std::fs::write(&input, "one\n\n/system be brief\ntwo\n/clear\nthree\n/claer\n/help\n/exit\nnever said\n").unwrap();
    let mut command = polyctl::command(polyctl::program(), home.path());
    let ran = polyctl::run(
        command.args(["chat", "d", "--url", &url]).stdin(Stdio::from(std::fs::File::open(input).unwrap())),
    );
    assert!(ran.stderr.contains("Did you mean /clear?") && ran.stderr.contains("/system TEXT"), "{ran:?}");
    assert!(ran.stderr.contains("1 token · "), "{ran:?}");
    assert_eq!(ran.ok(), "answer 1\nanswer 2\nanswer 3\n");
    let requests = serving.join().unwrap();
    let drawn = |at: &str| requests.iter().map(|request| request[at].as_f64().unwrap()).sum::<f64>() / 3.0;
    assert!((drawn("temperature") - 0.7).abs() < 1e-6 && (drawn("min_p") - 0.1).abs() < 1e-6, "{requests:?}");
    let said = |request: &Value| -> Vec<String> {
        let of = |message: &Value| {
            format!("{}: {}", message["role"].as_str().unwrap(), message["content"].as_str().unwrap())
        };
        request["messages"].as_array().unwrap().iter().map(of).collect()
    };
    let asked: Vec<Vec<String>> = requests.iter().map(said).collect();
    assert_eq!(asked[0], ["user: one"]);
    assert_eq!(asked[1], ["system: be brief", "user: one", "assistant: answer 1", "user: two"]);
    assert_eq!(asked[2], ["system: be brief", "user: three"]);
}

#[test]
fn a_conversation_past_the_context_is_told_how_it_is_shortened() {
    let note = "answered 400: no room\n  /clear forgets the conversation\n";
    for (lines, has_note) in [("one\ntoo much\n", true), ("too much\n", false)] {
        let (url, serving) = endpoint(lines.lines().count());
        let home = tempfile::tempdir().unwrap();
        let input = home.path().join("input");
        std::fs::write(&input, lines).unwrap();
        let mut command = polyctl::command(polyctl::program(), home.path());
        let input = Stdio::from(std::fs::File::open(input).unwrap());
        let error = polyctl::run(command.args(["chat", "d", "--url", &url]).stdin(input)).failed();
        assert_eq!(error.ends_with(note), has_note, "{lines:?}: {error}");
        serving.join().unwrap();
    }
}

#[test]
fn this_machine_is_reached_without_the_proxy_that_the_environment_names() {
    let (url, serving) = endpoint(1);
    let home = tempfile::tempdir().unwrap();
    let mut command = polyctl::command(polyctl::program(), home.path());
    // Nobody answers there.
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(variable, "http://127.0.0.1:1");
    }
    assert_eq!(polyctl::run(command.args(["chat", "d", "hello", "--url", &url])).ok(), "answer 1\n");
    serving.join().unwrap();
}

#[test]
fn what_no_proxy_says_in_vain_is_named() {
    let home = tempfile::tempdir().unwrap();
    let kubeconfig = home.path().join("elsewhere");
    let text = "{current-context: a, contexts: [{name: a, context: {cluster: a}}], \
                clusters: [{name: a, cluster: {server: 'http://192.0.2.1:1'}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    let mut command = polyctl::command(polyctl::program(), home.path());
    // Nobody answers there.
    command.env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "10.0.0.0/33,,example.com");
    let error = polyctl::run(command.args(["get", "phones", "--kubeconfig"]).arg(&kubeconfig)).failed();
    assert!(error.starts_with("warning: NO_PROXY: \"10.0.0.0/33\" is passed over"), "{error}");
    assert_eq!(error.matches("NO_PROXY").count(), 1, "{error}");
}

#[test]
fn a_reader_that_has_gone_is_no_reason_to_panic() {
    let home = tempfile::tempdir().unwrap();
    for (line, expected) in [("no-such-verb", 1), ("--help", 0), ("get phones", 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = polyctl::command(polyctl::program(), home.path());
        let closed = || Stdio::from(writer.try_clone().unwrap());
        let status = command.args(line.split(' ')).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{line}");
    }
}
