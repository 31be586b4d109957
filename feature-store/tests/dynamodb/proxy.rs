//! A proxy before the emulator that disturbs calls as the service and the network do.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error with this name is answered; the call is not carried out.
    Refuse(&'static str),
    /// As before, as an error of the service's.
    Fail(&'static str),
    /// The connection ends before the call is carried out.
    DropBefore,
    /// The connection ends after the call was carried out.
    DropAfter,
    /// The connection ends in the middle of the answer.
    Cut,
    /// The call is carried out later, so that others overtake it.
    Delay(Duration),
    /// `BatchWriteItem` and `BatchGetItem`: the last half of the items, at least one, is not processed.
    Unprocessed,
    /// `Query` and `Scan`: at most two items a page.
    SmallPage,
    /// This is answered, and nothing carried out.
    Answer(Value),
}

/// A call that came in.
pub struct Call {
    pub operation: String,
    /// How many of its operation came before.
    pub nth: u64,
    pub body: Value,
}

type Decide = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;

/// The running proxy. Dropped, it stops.
pub struct Proxy {
    pub endpoint: String,
    counts: Arc<Mutex<HashMap<String, Counts>>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    calls: u64,
    disturbed: u64,
}

impl Proxy {
    pub async fn start(backend: &str, decide: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let backend = backend.trim_start_matches("http://").to_string();
        let counts = Arc::new(Mutex::new(HashMap::new()));
        let (known, decide): (_, Decide) = (counts.clone(), Arc::new(decide));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (backend, counts, decide) = (backend.clone(), known.clone(), decide.clone());
                // A client that goes away in the middle of a call is part of the tests.
                tokio::spawn(async move { serve(client, &backend, &counts, &decide).await.ok() });
            }
        });
        Self { endpoint, counts, accepting }
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: &str) -> u64 {
        self.count(operation).calls
    }

    /// How many calls of an operation were disturbed.
    pub fn disturbed(&self, operation: &str) -> u64 {
        self.count(operation).disturbed
    }

    fn count(&self, operation: &str) -> Counts {
        self.counts.lock().expect("no panic").get(operation).copied().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A number for a call that is the same in every run with the same seed.
pub fn random(seed: u64, call: &Call) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, &call.operation, call.nth).hash(&mut hasher);
    hasher.finish()
}

/// Serves the calls of a connection, until a fault ends it.
async fn serve(
    mut client: TcpStream,
    backend: &str,
    counts: &Mutex<HashMap<String, Counts>>,
    decide: &Decide,
) -> io::Result<()> {
    let mut server = TcpStream::connect(backend).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    loop {
        let (head, body) = receive(&mut client).await?;
        let operation = header(&head, "x-amz-target").rsplit('.').next().unwrap_or_default().to_string();
        let mut call = Call { operation, nth: 0, body: serde_json::from_slice(&body)? };
        call.nth = count(counts, &call.operation, |c| c.calls += 1).calls - 1;
        let fault = decide(&call);
        if fault != Fault::None {
            count(counts, &call.operation, |c| c.disturbed += 1);
        }
        let answer = match fault {
            Fault::None => forward(&mut server, &head, &call).await?,
            Fault::Refuse(name) => answer(400, &json!({ "__type": name, "message": "made up by the test" })),
            Fault::Fail(name) => answer(500, &json!({ "__type": name, "message": "made up by the test" })),
            Fault::Answer(body) => answer(200, &body),
            Fault::DropBefore => return Ok(()),
            Fault::DropAfter => return forward(&mut server, &head, &call).await.map(|_| ()),
            Fault::Cut => {
                let whole = forward(&mut server, &head, &call).await?;
                return client.write_all(&whole[..whole.len() - 1]).await;
            }
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                forward(&mut server, &head, &call).await?
            }
            Fault::Unprocessed => unprocessed(&mut server, &head, call).await?,
            Fault::SmallPage => {
                call.body["Limit"] = json!(2);
                forward(&mut server, &head, &call).await?
            }
        };
        client.write_all(&answer).await?;
    }
}

fn count(counts: &Mutex<HashMap<String, Counts>>, operation: &str, change: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = counts.lock().expect("no panic");
    let of = counts.entry(operation.to_string()).or_default();
    change(of);
    *of
}

/// Carries out the first half of the items and gives the others back.
async fn unprocessed(server: &mut TcpStream, head: &str, mut call: Call) -> io::Result<Vec<u8>> {
    let is_read = call.operation == "BatchGetItem";
    let (mut left, mut done) = (call.body["RequestItems"].clone(), 0);
    for (table, requests) in call.body["RequestItems"].as_object_mut().expect("tables") {
        let (requests, left) = match is_read {
            true => (&mut requests["Keys"], &mut left[table]["Keys"]),
            false => (requests, &mut left[table]),
        };
        let requests = requests.as_array_mut().expect("requests");
        *left = requests.split_off(requests.len() / 2).into();
        done += requests.len();
    }
    let mut answered = json!({ "Responses": {} });
    if done > 0 {
        let (_, body) = exchange(server, head, &call.operation, &call.body).await?;
        answered = serde_json::from_slice(&body)?;
    }
    answered[if is_read { "UnprocessedKeys" } else { "UnprocessedItems" }] = left;
    Ok(answer(200, &answered))
}

/// The emulator's answer to a call. It does not give the item of a failed condition, as the service does: that is added.
async fn forward(server: &mut TcpStream, head: &str, call: &Call) -> io::Result<Vec<u8>> {
    let (answered, body) = exchange(server, head, &call.operation, &call.body).await?;
    let mut value: Value = serde_json::from_slice(&body)?;
    let name = value["__type"].as_str().unwrap_or_default();
    if name.ends_with("ConditionalCheckFailedException")
        && call.body["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
    {
        let item = &call.body["Item"];
        let key = json!({ "pk": item["pk"], "sk": item["sk"] });
        let get = json!({ "TableName": call.body["TableName"], "Key": key, "ConsistentRead": true });
        let (_, got) = exchange(server, head, "GetItem", &get).await?;
        value["Item"] = serde_json::from_slice::<Value>(&got)?["Item"].take();
    }
    let status = answered.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(500);
    Ok(answer(status, &value))
}

async fn exchange(server: &mut TcpStream, head: &str, operation: &str, body: &Value) -> io::Result<(String, Vec<u8>)> {
    let replaced = ["content-length", "connection", "x-amz-target"];
    let is_kept = |line: &&str| !replaced.iter().any(|r| line.to_lowercase().starts_with(&format!("{r}:")));
    let mut sent: String = head.lines().filter(|l| !l.is_empty()).filter(is_kept).map(|l| format!("{l}\r\n")).collect();
    let body = body.to_string();
    sent.push_str(&format!("X-Amz-Target: DynamoDB_20120810.{operation}\r\nContent-Length: {}\r\n\r\n", body.len()));
    server.write_all(&[sent.into_bytes(), body.into_bytes()].concat()).await?;
    receive(server).await
}

fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} \r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// The next request or answer of a connection, which holds nothing behind it.
async fn receive(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length: usize = header(&head, "content-length").parse().unwrap_or(0);
    while bytes.len() < end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((head, bytes.split_off(end)))
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let named = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().find_map(named).unwrap_or_default()
}
