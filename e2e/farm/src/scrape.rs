//! Scraping: one `GET /metrics` over plain HTTP/1.0, whose answer ends where the connection does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// More metrics than this are a mistake.
const MAX_BYTES: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of the answer, or what is wrong with it.
pub(crate) fn scrape(address: SocketAddr) -> Result<String, String> {
    connect(address).map_err(|error| error.to_string()).and_then(ask)
}

/// # Errors
/// When nothing listens there.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
}

/// The body of the answer over a connection, or what is wrong with it.
pub(crate) fn ask(stream: TcpStream) -> Result<String, String> {
    let answer = exchange(stream).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("it answers {status:?}")),
    }
}

fn exchange(mut stream: TcpStream) -> std::io::Result<String> {
    let address = stream.peer_addr()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer is neither chunked nor kept open.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    // In one piece: a program may answer and hang up once it has read the first line.
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
