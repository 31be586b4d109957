//! A moto of a test's own on the loopback address: Glue, DynamoDB and S3, among others.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::s3::process::Process;
use crate::s3::proxy::receive;

/// One that ends with this value.
pub struct Moto(Process);

impl Moto {
    pub fn start() -> Self {
        let venv = std::env::var_os("FEATURECTL_MOTO").expect("run ./test, which installs moto");
        Self(Process::start("moto", 1200, |port| {
            let mut command = Command::new(PathBuf::from(&venv).join("bin/python"));
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/glue/until_closed.py")).arg(port.to_string());
            command
        }))
    }

    pub fn endpoint(&self) -> String {
        self.0.endpoint()
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The answer to a call of Glue.
    pub fn call(&self, operation: &str, body: &Value) -> Value {
        let (status, answer) = call(self.0.port, operation, body).expect("moto answers");
        assert_eq!(status, 200, "{operation} {body}: {answer}");
        answer
    }
}

fn call(port: u16, operation: &str, body: &Value) -> io::Result<(u16, Value)> {
    call_service(port, "glue", &format!("AWSGlue.{operation}"), body)
}

/// The status and the answer to a call of a service that takes JSON.
pub fn call_service(port: u16, service: &str, target: &str, body: &Value) -> io::Result<(u16, Value)> {
    let body = body.to_string();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nX-Amz-Target: {target}\r\n\
         Content-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\nX-Amz-Date: 20260101T000000Z\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/{service}/aws4_request, \
         SignedHeaders=host, Signature=0\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(&[head.into_bytes(), body.into_bytes()].concat())?;
    let (head, body) = receive(&mut stream)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(500);
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// A call that came to the proxy.
pub struct Call<'a> {
    pub operation: &'a str,
    pub body: Value,
    /// How many of its operation came before.
    pub nth: usize,
    target: &'a str,
    port: u16,
}

impl Call<'_> {
    /// What moto answers to it, or to one with another body.
    pub fn forward(&self, body: &Value) -> (u16, Value) {
        let service = if self.target.starts_with("AWSGlue") { "glue" } else { "dynamodb" };
        call_service(self.port, service, self.target, body).expect("moto answers")
    }

    /// An error of the service.
    pub fn refuse(&self, code: &str) -> (u16, Value) {
        (400, serde_json::json!({ "__type": code, "Message": "made up by the test" }))
    }
}

type Answer = Arc<dyn Fn(&Call<'_>) -> (u16, Value) + Send + Sync>;

/// A proxy before moto, until the process ends.
pub struct Proxy {
    pub endpoint: String,
    pub seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Proxy {
    pub fn start(moto: &Moto, answer: impl Fn(&Call<'_>) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let (kept, answer, port): (_, Answer, _) = (Arc::clone(&seen), Arc::new(answer), moto.0.port);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || serve(client, port, &kept, &answer));
            }
        });
        Self { endpoint, seen }
    }

    /// The bodies of the calls of an operation.
    pub fn calls(&self, operation: &str) -> Vec<Value> {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|(o, _)| o == operation).map(|(_, body)| body.clone()).collect()
    }
}

fn serve(mut client: TcpStream, port: u16, seen: &Mutex<Vec<(String, Value)>>, answer: &Answer) -> io::Result<()> {
    loop {
        let (head, body) = receive(&mut client)?;
        let target = head.lines().find(|l| l.to_lowercase().starts_with("x-amz-target:"));
        let target = target.and_then(|l| l.split(':').next_back()).unwrap_or_default().trim();
        let operation = target.rsplit('.').next().unwrap_or_default();
        let body: Value = serde_json::from_slice(&body)?;
        let nth = {
            let mut seen = seen.lock().expect("no panic");
            seen.push((operation.to_string(), body.clone()));
            seen.iter().filter(|(o, _)| o == operation).count() - 1
        };
        let (status, body) = answer(&Call { operation, body, nth, target, port });
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} \r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(&[head.into_bytes(), body.into_bytes()].concat())?;
    }
}
