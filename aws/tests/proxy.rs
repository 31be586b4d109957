//! A proxy before the emulator that answers some requests itself, as S3 does when it refuses them.
#![allow(dead_code, reason = "each of the tests that share this file uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A request that came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// All of its head.
    pub head: String,
    /// How many came before.
    pub nth: u64,
}

/// What happens to a request, if it is not carried out as it is.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This is answered, and nothing carried out.
    Refuse(Refusal),
    /// The connection ends before it is carried out.
    DropBefore,
    /// The connection ends after it was carried out.
    DropAfter,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What is answered instead of the emulator.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
    /// More elements of the body.
    pub more: &'static str,
}

impl Refusal {
    pub fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, more: "" }
    }

    fn bytes(&self, is_head: bool) -> Vec<u8> {
        let Self { status, code, message, more } = self;
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}\
             <RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        let head = format!(
            "HTTP/1.1 {status} \r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            if is_head { 0 } else { body.len() }
        );
        [head.into_bytes(), if is_head { vec![] } else { body.into_bytes() }].concat()
    }
}

type Decide = Arc<dyn Fn(&Request) -> Option<Fault> + Send + Sync>;

/// The running proxy, until the process ends.
pub struct Proxy {
    pub endpoint: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    /// `backend` may be empty, if everything is refused.
    pub fn start<F: Into<Fault>>(
        backend: &str,
        decide: impl Fn(&Request) -> Option<F> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let backend = backend.trim_start_matches("http://").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, decide, count): (_, Decide, _) =
            (Arc::clone(&seen), Arc::new(move |r: &Request| decide(r).map(Into::into)), Arc::new(AtomicU64::new(0)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (backend, kept, decide, count) = (backend.clone(), kept.clone(), decide.clone(), count.clone());
                std::thread::spawn(move || serve(client, &backend, &kept, &decide, &count));
            }
        });
        Self { endpoint, seen }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }
}

/// One request a connection.
fn serve(
    mut client: TcpStream,
    backend: &str,
    seen: &Mutex<Vec<Request>>,
    decide: &Decide,
    count: &AtomicU64,
) -> io::Result<()> {
    let (head, body) = receive(&mut client)?;
    let method = head.split(' ').next().unwrap_or_default().to_string();
    let request = Request { method, head: head.clone(), nth: count.fetch_add(1, Ordering::Relaxed) };
    seen.lock().expect("no panic").push(request.clone());
    let fault = decide(&request);
    match &fault {
        Some(Fault::Refuse(refusal)) => return client.write_all(&refusal.bytes(request.method == "HEAD")),
        Some(Fault::DropBefore) => return Ok(()),
        Some(Fault::DropAfter) | None => {}
    }
    let mut server = TcpStream::connect(backend)?;
    let kept = head.lines().filter(|l| !l.is_empty() && !l.to_lowercase().starts_with("connection:"));
    let sent: String = kept.map(|l| format!("{l}\r\n")).collect();
    server.write_all(&[format!("{sent}Connection: close\r\n\r\n").into_bytes(), body].concat())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if fault.is_some() { Ok(()) } else { client.write_all(&answer) }
}

/// The head of a request or an answer, and its body.
pub fn receive(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut buffer)? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        n => {
            bytes.extend(&buffer[..n]);
            Ok(())
        }
    };
    let end = loop {
        match bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            Some(at) => break at + 4,
            None => more(&mut bytes)?,
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length =
        head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    while bytes.len() < end + length.unwrap_or(0) {
        more(&mut bytes)?;
    }
    Ok((head, bytes.split_off(end)))
}
