//! `login` and `logout`: credentials in Docker's config file.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::base::Secret;
use crate::cli::exit::{Exit, usage};
use crate::cli::session::{Out, Session};

/// What `docker login` without a server means.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Keep credentials for a registry, once it has accepted them.
#[derive(Debug, Clone, clap::Args)]
pub struct LoginArgs {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password; others on this machine can see it: prefer --password-stdin
    #[arg(short, long, value_name = "TEXT")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Forget a registry's credentials.
#[derive(Debug, Clone, clap::Args)]
pub struct LogoutArgs {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

pub fn login(args: LoginArgs, session: &Session) -> anyhow::Result<Exit> {
    if args.password.is_some() && args.password_stdin {
        return Err(usage("--password and --password-stdin are mutually exclusive"));
    }
    if args.password_stdin && args.username.is_none() {
        return Err(usage("must provide --username with --password-stdin"));
    }
    let user = match args.username {
        Some(user) => user,
        None => ask("Username: ")?,
    };
    let password = if args.password_stdin {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        Secret::from(text.trim_end_matches(['\n', '\r']))
    } else if let Some(password) = args.password {
        session.warn("using --password on the command line is insecure; use --password-stdin");
        Secret::from(password)
    } else {
        ask_secret("Password: ")?
    };
    if password.is_empty() {
        return Err(usage("the password is empty"));
    }
    let server = args.server.as_deref().unwrap_or(DOCKER_HUB);
    let place = session.state()?.registry()?.login(server, &user, &password, &session.cancel()?)?;
    session.note(format!("credentials are kept in {place}"));
    let mut out = Out::new();
    out.line("Login Succeeded")?;
    out.finish()?;
    Ok(Exit::Success)
}

fn ask(question: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(usage("no user is given, and standard input is no terminal to ask at: use --username"));
    }
    prompt(question)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        "" => Err(usage("the user name is empty")),
        user => Ok(user.to_owned()),
    }
}

fn prompt(question: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    err.write_all(question.as_bytes())?;
    err.flush()
}

/// Reads a line that the terminal does not show. The terminal hands on every key as it is, so that Ctrl-C is ours to
/// see, and the terminal is never left without its echo.
fn ask_secret(question: &str) -> anyhow::Result<Secret> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(usage("no password is given, and standard input is no terminal to ask at: use --password-stdin"));
    }
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    tcsetattr(&stdin, SetArg::TCSADRAIN, &hidden)?;
    let typed = prompt(question).and_then(|()| type_line(&mut stdin.lock()));
    tcsetattr(&stdin, SetArg::TCSADRAIN, &before)?;
    prompt("\n")?;
    Ok(Secret::from(typed?))
}

const INTERRUPT: u8 = 3;
const END: u8 = 4;
const KILL: u8 = 21;

fn type_line(keys: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut key = [0];
    while keys.read(&mut key)? == 1 {
        match key[0] {
            b'\n' | b'\r' | END => break,
            INTERRUPT => return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted")),
            KILL => line.clear(),
            // One character, however many bytes it has.
            8 | 127 => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the password is not UTF-8"))
}

pub fn logout(args: LogoutArgs, session: &Session) -> anyhow::Result<Exit> {
    let server = args.server.as_deref().unwrap_or(DOCKER_HUB);
    let mut out = Out::new();
    match session.state()?.registry()?.logout(server)? {
        true => out.line(format!("Removing login credentials for {server}"))?,
        false => out.line(format!("Not logged in to {server}"))?,
    }
    out.finish()?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_typed_and_mended() {
        let cases: [(&[u8], &str); 6] = [
            (b"secret\nmore", "secret"),
            (b"secreT\x7ft\r", "secret"),
            ("gr\u{fc}\u{7f}\u{fc}n\n".as_bytes(), "gr\u{fc}n"),
            (b"wrong\x15right\n", "right"),
            (b"\x7f\x7fa\n", "a"),
            (b"no end", "no end"),
        ];
        for (keys, expected) in cases {
            assert_eq!(type_line(&mut &*keys).unwrap(), expected, "{keys:?}");
        }
        assert_eq!(type_line(&mut &b"a\x03b\n"[..]).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
