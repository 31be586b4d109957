//! A proxy before the emulator that disturbs calls as the service and the network do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error with this name is answered; the call is not carried out.
    Refuse(&'static str),
    /// The connection ends before the call is carried out.
    DropBefore,
    /// The connection ends after the call was carried out.
    DropAfter,
    /// `GetRecords`: no record, the same iterator, and the tip is far.
    Empty,
    /// `PutRecords`: every `n`th record is refused, the others are put.
    Partial(usize),
    /// `ListShards`: at most two shards a page.
    SmallPage,
}

/// Says what happens to the `n`th call, counted from 0, of an operation.
pub type Decide = Arc<dyn Fn(&str, u64) -> Fault + Send + Sync>;

/// The running proxy. Dropped, it stops.
pub struct Proxy {
    pub endpoint: String,
    calls: Arc<Mutex<HashMap<String, u64>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(backend: &str, decide: impl Fn(&str, u64) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let backend = backend.trim_start_matches("http://").to_string();
        let calls = Arc::new(Mutex::new(HashMap::new()));
        let (counts, decide): (_, Decide) = (calls.clone(), Arc::new(decide));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (backend, counts, decide) = (backend.clone(), counts.clone(), decide.clone());
                // A client that goes away in the middle of a call is part of the tests.
                tokio::spawn(async move { serve(client, &backend, &counts, &decide).await.ok() });
            }
        });
        Self { endpoint, calls, accepting }
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: &str) -> u64 {
        self.calls.lock().unwrap().get(operation).copied().unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Request {
    head: String,
    body: Vec<u8>,
}

/// Serves one call of a connection, then closes it.
async fn serve(
    mut client: TcpStream,
    backend: &str,
    counts: &Mutex<HashMap<String, u64>>,
    decide: &Decide,
) -> std::io::Result<()> {
    let request = receive(&mut client).await?;
    let operation = header(&request.head, "x-amz-target").rsplit('.').next().unwrap_or_default().to_string();
    let nth = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(operation.clone()).or_insert(0);
        *count += 1;
        *count - 1
    };
    let answer = match decide(&operation, nth) {
        Fault::None => forward(backend, &request.head, &request.body).await?,
        Fault::Refuse(name) => answer(400, &json!({ "__type": name, "message": "made up by the test" })),
        Fault::DropBefore => return Ok(()),
        Fault::DropAfter => {
            forward(backend, &request.head, &request.body).await?;
            return Ok(());
        }
        Fault::Empty => {
            let iterator = &body(&request.body)["ShardIterator"];
            answer(200, &json!({ "Records": [], "NextShardIterator": iterator, "MillisBehindLatest": 60_000 }))
        }
        Fault::Partial(n) => partial(backend, &request, n).await?,
        Fault::SmallPage => {
            let mut changed = body(&request.body);
            changed["MaxResults"] = json!(2);
            forward(backend, &request.head, &serde_json::to_vec(&changed)?).await?
        }
    };
    client.write_all(&answer).await
}

async fn partial(backend: &str, request: &Request, n: usize) -> std::io::Result<Vec<u8>> {
    let mut changed = body(&request.body);
    let all = changed["Records"].as_array().unwrap().clone();
    let refused = |i: usize| i % n == n - 1;
    let kept: Vec<&Value> = all.iter().enumerate().filter(|(i, _)| !refused(*i)).map(|(_, r)| r).collect();
    let mut put = Vec::new();
    if !kept.is_empty() {
        changed["Records"] = json!(kept);
        let raw = forward(backend, &request.head, &serde_json::to_vec(&changed)?).await?;
        let text = String::from_utf8(raw).unwrap();
        let answered: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        put = answered["Records"].as_array().unwrap().clone();
    }
    let mut put = put.into_iter();
    let error = json!({ "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "made up" });
    let records: Vec<Value> =
        (0..all.len()).map(|i| if refused(i) { error.clone() } else { put.next().unwrap() }).collect();
    Ok(answer(200, &json!({ "FailedRecordCount": all.len() - kept.len(), "Records": records })))
}

fn body(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} \r\nContent-Type: application/x-amz-json-1.1\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

async fn receive(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length: usize = header(&head, "content-length").parse().unwrap_or(0);
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Request { head, body: bytes[end..].to_vec() })
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let named = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().find_map(named).unwrap_or_default()
}

/// The emulator's whole answer to a call.
async fn forward(backend: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(backend).await?;
    let replaced = ["content-length", "connection"];
    let is_kept = |line: &&str| !replaced.iter().any(|r| line.to_lowercase().starts_with(&format!("{r}:")));
    let mut sent: String = head.lines().filter(|l| !l.is_empty()).filter(is_kept).map(|l| format!("{l}\r\n")).collect();
    sent.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
    server.write_all(&[sent.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}
