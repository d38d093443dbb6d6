//! Modes as `COPY --chmod` takes them: octal, or chmod(1)'s symbols with no umask.

/// What a mode text changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange(Vec<Command>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mode {0:?} is malformed, expected octal digits or symbols like u=rwX,go=rX")]
pub struct BadMode(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Set(u32),
    Clear(u32),
    /// `X`: only for directories, and files that somebody may execute.
    SetIfExecutable(u32),
    /// `g=u`: these bits become those of another class, in place of what they were, or on top, or are taken away.
    Copy {
        from: u32,
        who: u32,
        op: u8,
    },
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// All that `=` without a class replaces.
const STANDARD: u32 = 0o6777;
const EXECUTE: u32 = 0o111;

impl ModeChange {
    /// Replaces all bits.
    pub fn absolute(mode: u32) -> Self {
        Self(vec![Command::Clear(0o7777), Command::Set(mode & 0o7777)])
    }

    pub fn parse(text: &str) -> Result<Self, BadMode> {
        let bad = || BadMode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::absolute(mode)),
                _ => Err(bad()),
            };
        }
        let mut commands = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut commands).ok_or_else(bad)?;
        }
        Ok(Self(commands))
    }

    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let executable = is_dir || mode & EXECUTE != 0;
        self.0.iter().fold(mode & 0o7777, |mode, command| match *command {
            Command::Set(bits) => mode | bits,
            Command::Clear(bits) => mode & !bits,
            Command::SetIfExecutable(bits) if executable => mode | bits,
            Command::SetIfExecutable(_) => mode,
            Command::Copy { from, who, op } => {
                let value = (mode >> from) & 0o7;
                let bits = (value << 6 | value << 3 | value) & who;
                match op {
                    b'+' => mode | bits,
                    b'-' => mode & !bits,
                    _ => mode & !(who & 0o777) | bits,
                }
            }
        })
    }
}

fn parse_clause(mut clause: &[u8], commands: &mut Vec<Command>) -> Option<()> {
    let mut who = 0;
    while let Some((class, rest)) = clause.split_first() {
        who |= match class {
            b'a' => STANDARD,
            b'u' => SETUID | 0o700,
            b'g' => SETGID | 0o070,
            b'o' => 0o007,
            _ => break,
        };
        clause = rest;
    }
    // A clause may have several operations on the same classes: `u+r-w`.
    loop {
        let (&op, rest) = clause.split_first()?;
        if !b"+-=".contains(&op) {
            return None;
        }
        clause = parse_operation(op, who, rest, commands);
        if clause.is_empty() {
            return Some(());
        }
    }
}

/// Reads the permissions after `+`, `-` or `=`, and gives back what follows them.
fn parse_operation<'a>(op: u8, mut who: u32, mut rest: &'a [u8], commands: &mut Vec<Command>) -> &'a [u8] {
    let (mut bits, mut bits_if_executable) = (0, 0);
    // Set-id and sticky bits mean nothing to "other".
    let special = who == 0 || who & !0o007 != 0;
    let mut copies = Vec::new();
    while let Some((symbol, after)) = rest.split_first() {
        match symbol {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= EXECUTE,
            b'X' if op == b'-' => bits |= EXECUTE,
            b'X' => bits_if_executable = EXECUTE,
            b's' if special => bits |= SETUID | SETGID,
            b't' if special => {
                who |= STICKY * u32::from(who != 0);
                bits |= STICKY;
            }
            b's' | b't' => {}
            b'u' => copies.push(6),
            b'g' => copies.push(3),
            b'o' => copies.push(0),
            _ => break,
        }
        rest = after;
    }
    let reach = if who == 0 { STANDARD | STICKY } else { who };
    match op {
        b'-' => commands.push(Command::Clear(bits & reach)),
        b'=' if copies.is_empty() => {
            commands.push(Command::Clear(if who == 0 { STANDARD | bits & STICKY } else { who }));
            commands.push(Command::Set(bits & reach));
        }
        _ => commands.push(Command::Set(bits & reach)),
    }
    if bits_if_executable != 0 {
        commands.push(Command::SetIfExecutable(bits_if_executable & reach));
    }
    commands.extend(copies.into_iter().map(|from| Command::Copy { from, who: reach, op }));
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_chmod() {
        for (text, mode, is_dir, expected, why) in [
            ("755", 0o600, false, 0o755, "octal replaces all"),
            ("0644", 0o4755, false, 0o644, "a leading zero is octal too; setuid goes"),
            ("4711", 0o600, false, 0o4711, "setuid in octal"),
            ("u=rwX,go=rX", 0o640, false, 0o644, "X leaves a plain file alone"),
            ("u=rwX,go=rX", 0o740, false, 0o755, "X follows an executable"),
            ("u=rwX,go=rX", 0o600, true, 0o755, "X goes to directories"),
            ("+x", 0o644, false, 0o755, "no class is all classes"),
            ("a-w", 0o666, false, 0o444, "a class of all"),
            ("go=", 0o777, false, 0o700, "nothing for some"),
            ("g=u-w", 0o750, false, 0o750, "copied, then taken away"),
            ("o+g", 0o640, false, 0o644, "copied on top"),
            ("u+s,+t", 0o755, true, 0o5755, "special bits"),
            ("o+s", 0o755, false, 0o755, "set-id means nothing to others"),
            ("u+r-w", 0o200, false, 0o400, "two operations on one class"),
            ("=r", 0o4755, false, 0o444, "= clears set-id"),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(mode, is_dir), expected, "{text} on {mode:o}: {why}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "u", "9", "77777", "u+z", "u=r,", "+x,q"] {
            assert!(ModeChange::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            ModeChange::parse("rwx").unwrap_err().to_string(),
            "mode \"rwx\" is malformed, expected octal digits or symbols like u=rwX,go=rX"
        );
    }
}
