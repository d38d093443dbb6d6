//! Debian's docker-registry on loopback, in four set-ups, each with its own port and folder; and the small token
//! server that the fourth asks for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;

pub const USER: &str = "user";
pub const PASSWORD: &str = "pass:word";

/// True where all programs are installed; else says which is not, and the test is over.
pub fn has(programs: &[&str]) -> bool {
    match programs.iter().find(|program| which::which(program).is_err()) {
        Some(program) => {
            skip(&format!("needs {program}"));
            false
        }
        None => true,
    }
}

/// Says by name and reason that this test cannot run here.
pub fn skip(reason: &str) {
    eprintln!("skip: {}: {reason}", std::thread::current().name().unwrap_or("?"));
}

pub struct DockerRegistry {
    child: Child,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl DockerRegistry {
    pub fn open() -> Self {
        Self::start(|_| String::new())
    }

    /// With a certificate for 127.0.0.1 of an authority of its own: `ca.crt` in its folder.
    pub fn tls() -> Self {
        Self::start(|dir| {
            certificate(dir, "server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
            format!("  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n", dir.display())
        })
    }

    /// As `tls`, and only for clients with a certificate of that authority: `client.crt`, `client.key`.
    pub fn mutual_tls() -> Self {
        Self::start(|dir| {
            certificate(dir, "server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
            certificate(dir, "client", "extendedKeyUsage=clientAuth");
            format!(
                "  tls:\n    certificate: {0}/server.crt\n    key: {0}/server.key\n    clientcas: [{0}/ca.crt]\n",
                dir.display()
            )
        })
    }

    pub fn htpasswd() -> Self {
        Self::start(|dir| {
            let output = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output().unwrap();
            std::fs::write(dir.join("htpasswd"), output.stdout).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n", dir.display())
        })
    }

    pub fn token(server: &TokenServer) -> Self {
        Self::start(|_| {
            format!(
                "auth:\n  token:\n    realm: http://127.0.0.1:{}/token\n    service: registry.test\n    issuer: issuer.test\n    rootcertbundle: {}/ca.crt\n",
                server.port,
                server.dir.path().display()
            )
        })
    }

    /// `extra` goes on inside `http:`, or begins a section of its own.
    fn start(extra: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let extra = extra(dir.path());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // Between closing and opening, another may take the port; then the next one does it.
        for _ in 0..5 {
            let port = free_port();
            let config = dir.path().join("config.yml");
            let data = dir.path().join("data");
            std::fs::write(
                &config,
                format!(
                    "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{extra}",
                    data.display()
                ),
            )
            .unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdout(log.try_clone().unwrap())
                .stderr(log.try_clone().unwrap())
                .spawn()
                .unwrap();
            if is_up(&mut child, port) {
                return Self { child, port, dir };
            }
        }
        panic!("docker-registry does not start: {}", std::fs::read_to_string(dir.path().join("log")).unwrap());
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn reference(&self, rest: &str) -> dockless::base::Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }

    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn is_up(child: &mut Child, port: u16) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// A key and a certificate of the authority in that folder, which is made when it is missing.
fn certificate(dir: &Path, name: &str, extension: &str) {
    if !dir.join("ca.crt").exists() {
        authority(dir);
    }
    openssl(
        dir,
        &[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &format!("{name}.key"),
            "-subj",
            "/CN=test",
            "-out",
            "request",
        ],
    );
    std::fs::write(dir.join("extension"), extension).unwrap();
    openssl(
        dir,
        &[
            "x509",
            "-req",
            "-in",
            "request",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extension",
            "-out",
            &format!("{name}.crt"),
        ],
    );
}

fn authority(dir: &Path) {
    openssl(
        dir,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
            "-days",
            "2",
            "-subj",
            "/CN=authority",
        ],
    );
}

fn openssl(dir: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Gives tokens to [`USER`], and to the anonymous for pulling from `public/`.
pub struct TokenServer {
    pub port: u16,
    pub dir: Arc<tempfile::TempDir>,
    /// Request lines and bodies.
    pub asked: Arc<Mutex<Vec<String>>>,
}

pub const IDENTITY: &str = "identity-token";

impl TokenServer {
    pub fn start() -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        authority(dir.path());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (folder, log) = (Arc::clone(&dir), Arc::clone(&asked));
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), folder.path(), &log);
            }
        });
        Self { port, dir, asked }
    }
}

fn answer(stream: TcpStream, dir: &Path, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut authorization = None;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? <= 2 {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    log.lock().unwrap().push(format!("{} {body}", line.trim()));
    let address = url::Url::parse(&format!("http://x{}", line.split(' ').nth(1)?)).ok()?;
    let mut pairs: Vec<(String, String)> = address.query_pairs().into_owned().collect();
    pairs.extend(url::form_urlencoded::parse(body.as_bytes()).into_owned());
    let of = |name: &'static str| pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.clone());
    let expected = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let known =
        authorization.as_deref() == Some(&format!("Basic {expected}")) || of("refresh_token").any(|t| t == IDENTITY);
    let (status, answer) = if authorization.is_some() && !known {
        ("401 Unauthorized", r#"{"details":"incorrect username or password"}"#.to_owned())
    } else {
        let mut access = Vec::new();
        for scope in of("scope").flat_map(|scopes| scopes.split(' ').map(str::to_owned).collect::<Vec<_>>()) {
            let mut parts = scope.splitn(3, ':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let granted: Vec<&str> = actions
                .split(',')
                .filter(|action| known || (*action == "pull" && name.starts_with("public/")))
                .collect();
            access.push(serde_json::json!({ "type": kind, "name": name, "actions": granted }));
        }
        let token = token(dir, access);
        let refresh = if of("offline_token").any(|t| t == "true") { Some(IDENTITY) } else { None };
        ("200 OK", serde_json::json!({ "token": token, "expires_in": 300, "refresh_token": refresh }).to_string())
    };
    let mut stream = reader.into_inner();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len()).ok()
}

/// A JSON Web Token as docker-registry checks it: RS256, with the certificate in its header.
fn token(dir: &Path, access: Vec<serde_json::Value>) -> String {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let pem = std::fs::read_to_string(dir.join("ca.crt")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(STANDARD.decode(&der).is_ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let header = serde_json::json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = serde_json::json!({
        "iss": "issuer.test", "sub": USER, "aud": "registry.test", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "1", "access": access,
    });
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let input: PathBuf = dir.join("signed");
    std::fs::write(&input, &signed).unwrap();
    let signature = openssl(dir, &["dgst", "-sha256", "-sign", "ca.key", "signed"]);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
