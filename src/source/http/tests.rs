use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

type Answer = Box<dyn FnMut(&str, &BTreeMap<String, String>) -> String + Send>;

/// A server of one connection after the other; what it answers is up to the test.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>,
}

impl Server {
    fn new(mut answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream: TcpStream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let headers: BTreeMap<_, _> = lines
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())))
                    .collect();
                let text = answer(&path, &headers);
                log.lock().unwrap().push((path, headers));
                let _ = stream.write_all(text.as_bytes());
            }
        });
        Self { address, seen }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn ok(headers: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn get(request: &HttpRequest, cache: &Path) -> Result<HttpFile, HttpError> {
    fetch(request, cache, &Env::default(), &Step::none(), &Cancel::new())
}

fn content(file: &HttpFile) -> String {
    let mut text = String::new();
    File::open(&file.path).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let mut version = 0;
    let server = Server::new(Box::new(move |path, headers| {
        if path == "/change" {
            version += 1;
            return ok("", "");
        }
        let etag = format!("\"{version}\"");
        if headers.get("if-none-match") == Some(&etag) {
            return "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned();
        }
        let headers = format!(
            "ETag: {etag}\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Disposition: attachment; filename=n.txt\r\n"
        );
        ok(&headers, &format!("version {version}"))
    }));
    let tmp = tempfile::tempdir().unwrap();
    let request = HttpRequest { url: format!("{}/a/b?token=1", server.address), ..HttpRequest::default() };
    let first = get(&request, tmp.path()).unwrap();
    assert_eq!(content(&first), "version 0");
    assert_eq!((first.filename.as_str(), first.modified), ("n.txt", Some(784_111_777)));
    assert_eq!(first.digest, Digest::of("version 0"));
    assert_eq!(get(&request, tmp.path()).unwrap(), first);
    assert_eq!(server.seen.lock().unwrap()[1].1["if-none-match"], "\"0\"");

    get(&HttpRequest { url: format!("{}/change", server.address), ..HttpRequest::default() }, tmp.path()).unwrap();
    assert_eq!(content(&get(&request, tmp.path()).unwrap()), "version 1");

    let pinned = HttpRequest { checksum: Some(Digest::of("version 1")), filename: Some("mine".into()), ..request };
    let before = server.count();
    assert_eq!(get(&pinned, tmp.path()).unwrap().filename, "mine");
    assert_eq!(server.count(), before, "what is here is not asked for");
}

#[test]
fn a_wrong_checksum_leaves_nothing_behind() {
    let server = Server::new(Box::new(|_, _| ok("", "evil")));
    let tmp = tempfile::tempdir().unwrap();
    let request =
        HttpRequest { url: server.address.clone(), checksum: Some(Digest::of("good")), ..HttpRequest::default() };
    let error = get(&request, tmp.path()).unwrap_err();
    assert!(matches!(&error, HttpError::Checksum { actual, .. } if *actual == Digest::of("evil")), "{error}");
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
}

/// Met with a server that answers "not modified": what an earlier build had fetched passed for any checksum.
#[test]
fn a_wrong_checksum_is_told_of_what_is_here_too() {
    let server = Server::new(Box::new(|_, headers| match headers.contains_key("if-none-match") {
        true => "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned(),
        false => ok("ETag: \"1\"\r\n", "here"),
    }));
    let tmp = tempfile::tempdir().unwrap();
    let unchecked = HttpRequest { url: server.address.clone(), ..HttpRequest::default() };
    assert_eq!(content(&get(&unchecked, tmp.path()).unwrap()), "here");
    let error = get(&HttpRequest { checksum: Some(Digest::of("good")), ..unchecked.clone() }, tmp.path()).unwrap_err();
    assert!(matches!(&error, HttpError::Checksum { actual, .. } if *actual == Digest::of("here")), "{error}");
    get(&HttpRequest { checksum: Some(Digest::of("here")), ..unchecked }, tmp.path()).unwrap();
}

#[test]
fn credentials_stay_with_the_host_they_are_for() {
    let other = Server::new(Box::new(|_, _| ok("", "file")));
    let target = other.address.clone();
    let server = Server::new(Box::new(move |path, _| match path {
        "/same" => ok("", "same"),
        "/loop" => "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /loop\r\n\r\n".to_owned(),
        "/up" => "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: file:///etc/passwd\r\n\r\n".to_owned(),
        "/near" => "HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nLocation: same\r\n\r\n".to_owned(),
        _ => format!("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {target}/x\r\n\r\n"),
    }));
    let tmp = tempfile::tempdir().unwrap();
    let request = |path: &str| HttpRequest {
        url: format!("{}{path}", server.address),
        headers: vec![("Authorization".into(), "Bearer secret".into()), ("X-Other".into(), "1".into())],
        ..HttpRequest::default()
    };
    assert_eq!(content(&get(&request("/far"), tmp.path()).unwrap()), "file");
    let seen = other.seen.lock().unwrap()[0].1.clone();
    assert!(!seen.contains_key("authorization") && seen["x-other"] == "1", "{seen:?}");
    get(&request("/near"), tmp.path()).unwrap();
    assert_eq!(server.seen.lock().unwrap().last().unwrap().1["authorization"], "Bearer secret");
    let error = get(&request("/loop"), tmp.path()).unwrap_err().to_string();
    assert!(error.ends_with("more than 10 redirects"), "{error}");
    assert!(get(&request("/up"), tmp.path()).is_err());
}

#[test]
fn failures_are_tried_again_or_told() {
    let mut calls = 0;
    let server = Server::new(Box::new(move |path, _| {
        calls += 1;
        match (path, calls) {
            ("/gone?sig=secret", _) => {
                "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 7\r\n\r\nno such".to_owned()
            }
            (_, 1) => "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned(),
            (_, 2) => "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\ncut".to_owned(),
            _ => ok("", "whole"),
        }
    }));
    let tmp = tempfile::tempdir().unwrap();
    let request = |path: &str| HttpRequest { url: format!("{}{path}", server.address), ..HttpRequest::default() };
    assert_eq!(content(&get(&request("/f"), tmp.path()).unwrap()), "whole");
    let error = get(&request("/gone?sig=secret"), tmp.path()).unwrap_err().to_string();
    assert_eq!(error, format!("get {}/gone?…: 404 Not Found: no such", server.address));
    let cancel = Cancel::new();
    cancel.cancel();
    let cancelled = fetch(&request("/f"), tmp.path(), &Env::default(), &Step::none(), &cancel).unwrap_err();
    assert!(matches!(cancelled, HttpError::Cancelled(_)));
    assert!(get(&HttpRequest { url: "ftp://h/x".into(), ..HttpRequest::default() }, tmp.path()).is_err());
    assert!(get(&HttpRequest { url: "nonsense".into(), ..HttpRequest::default() }, tmp.path()).is_err());
}
