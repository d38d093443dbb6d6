//! A registry of our own that answers what a test tells it to, bytes and all, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Its beginning.
    pub body: Vec<u8>,
    pub length: u64,
}

/// Of a body; a layer of gigabytes is read and forgotten.
const REMEMBERED: u64 = 1024 * 1024;

#[derive(Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
    /// What Content-Length says; none: the truth, or nothing for an endless body.
    pub length: Option<u64>,
}

#[derive(Clone)]
pub enum Body {
    Bytes(Vec<u8>),
    /// Zeros, so many; none: for ever.
    Zeros(Option<u64>),
    /// One byte after the other, with this pause between them.
    Drip(Vec<u8>, Duration),
}

impl Default for Body {
    fn default() -> Self {
        Self::Bytes(Vec::new())
    }
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: Body::Bytes(bytes.into()), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Stops listening with the test process; its threads hold nothing that outlives it.
pub struct HostileRegistry {
    pub port: u16,
    pub asked: Arc<Mutex<Vec<Request>>>,
}

impl HostileRegistry {
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { port, asked }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn reference(&self, rest: &str) -> dockless::base::Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    /// `GET /v2/a/b/...` of all requests but the first question which protocol is spoken.
    pub fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|r| format!("{} {}", r.method, r.path)).filter(|line| line != "GET /v2/").collect()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, usize) -> Reply) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split(' ');
        let mut request = Request {
            method: words.next()?.to_owned(),
            path: words.next()?.to_owned(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            length: 0,
        };
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).ok()? <= 2 {
                break;
            }
            let (name, value) = header.split_once(':')?;
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        if let Some(length) = request.headers.get("content-length") {
            let length: u64 = length.parse().ok()?;
            request.body = vec![0; length.min(REMEMBERED) as usize];
            reader.read_exact(&mut request.body).ok()?;
            request.length = length;
            let rest = length - request.body.len() as u64;
            if std::io::copy(&mut reader.by_ref().take(rest), &mut std::io::sink()).ok()? < rest {
                return None;
            }
        }
        // How often this very thing was asked before.
        let before = {
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|r| r.method == request.method && r.path == request.path).count();
            log.push(request.clone());
            before
        };
        let reply = answer(&request, before);
        let real = match &reply.body {
            Body::Bytes(bytes) | Body::Drip(bytes, _) => Some(bytes.len() as u64),
            Body::Zeros(count) => *count,
        };
        let mut head = format!("HTTP/1.1 {} x\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        match reply.length.or(real) {
            Some(length) => head += &format!("Content-Length: {length}\r\n\r\n"),
            None => head += "Connection: close\r\n\r\n",
        }
        stream.write_all(head.as_bytes()).ok()?;
        if request.method == "HEAD" {
            continue;
        }
        match reply.body {
            Body::Bytes(bytes) => stream.write_all(&bytes).ok()?,
            Body::Drip(bytes, pause) => {
                for byte in bytes {
                    stream.write_all(&[byte]).ok()?;
                    std::thread::sleep(pause);
                }
            }
            Body::Zeros(count) => {
                let zeros = vec![0; 256 * 1024];
                let mut left = count.unwrap_or(u64::MAX);
                while left > 0 {
                    let piece = left.min(zeros.len() as u64) as usize;
                    stream.write_all(&zeros[..piece]).ok()?;
                    left -= piece as u64;
                }
            }
        }
        if reply.length.or(real) != real {
            // A body that is not as long as it said ends the connection.
            return None;
        }
    }
}
