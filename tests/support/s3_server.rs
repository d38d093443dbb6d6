//! s3s-fs: a folder as an S3 server that checks signatures. `ci/s3-server` installs it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub const ID: &str = "AKIDTEST";
pub const SECRET: &str = "very-secret-key";

pub struct S3Server {
    child: Child,
    port: u16,
    /// Buckets are folders of its `data`; there is one, `images`.
    pub dir: tempfile::TempDir,
}

/// Two servers must not try the same port.
static PORTS: Mutex<()> = Mutex::new(());

impl S3Server {
    /// None, with the reason said, where it is not installed.
    pub fn start() -> Option<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/s3s-fs");
        let program = if own.is_file() { Some(own) } else { which::which("s3s-fs").ok() };
        let Some(program) = program else {
            let test = std::thread::current();
            eprintln!("skip: {}: needs s3s-fs (ci/s3-server installs it)", test.name().unwrap_or("?"));
            return None;
        };
        let _alone = PORTS.lock().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("data/images")).unwrap();
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", ID, "--secret-key", SECRET])
            .arg(dir.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, dir };
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "s3s-fs does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
