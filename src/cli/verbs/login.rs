//! `login` and `logout`: credentials in Docker's config file.

use std::io::{self, BufRead, IsTerminal, Read};

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
        None => ask("Username: ", session)?,
    };
    let password = if args.password_stdin {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        Secret::from(text.trim_end_matches(['\n', '\r']))
    } else if let Some(password) = args.password {
        session.warn("using --password on the command line is insecure; use --password-stdin");
        Secret::from(password)
    } else {
        return Err(usage("no password is given: use --password-stdin"));
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

fn ask(question: &str, session: &Session) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        return Err(usage("no user is given: use --username"));
    }
    session.note(question);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    match line.trim() {
        "" => Err(usage("the user name is empty")),
        user => Ok(user.to_owned()),
    }
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
