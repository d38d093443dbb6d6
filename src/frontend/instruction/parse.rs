//! Nodes to instructions: the number of words, the flags, and what can be checked without knowing any variable.

use super::{
    Argument, Arguments, CommandLine, Copy, Device, File, InlineFile, Instruction, Pair, Run, RunNetwork, Stage, Step,
};
use crate::frontend::error::{Error, Errors, Result};
use crate::frontend::flags::{Flags, Kind};
use crate::frontend::go::{self, quote};
use crate::frontend::lint::{Linter, rules};
use crate::frontend::parser::{Node, Parsed};
use crate::frontend::{heredoc, mount, suggest};
use crate::image::config::Healthcheck;

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

enum Parts {
    From(Stage),
    Step(Step),
}

/// Reads all instructions. Every line's own mistakes are reported, not the first line's alone; `errors` are those of
/// lines that did not come so far.
pub fn file(parsed: &Parsed, mut errors: Errors, linter: &Linter) -> Result<File> {
    let mut file = File::default();
    // After a FROM that cannot be read, "no build stage" would only say so again.
    let mut lost_stage = false;
    for node in &parsed.nodes {
        let place = parsed.source.place(node.span());
        let mut report = |e: Error| errors.push(e.at_word(&place, &node.keyword));
        match instruction(node, linter) {
            Ok(Parts::From(stage)) => file.stages.push(stage),
            Ok(Parts::Step(step)) => match (file.stages.last_mut(), step.instruction) {
                (None, Instruction::Arg(pairs)) => file.arguments.push(Arguments { pairs, lines: step.lines }),
                (None, _) if lost_stage => {}
                (None, _) => {
                    lost_stage = true;
                    report(
                        Error::new("no build stage in current context").hint("only ARG may come before the first FROM"),
                    );
                }
                (Some(stage), instruction) => stage.steps.push(Step { instruction, ..step }),
            },
            Err(e) => {
                lost_stage |= node.keyword.eq_ignore_ascii_case("from");
                report(e);
            }
        }
        if errors.is_full() {
            break;
        }
    }
    errors.finish()?;
    Ok(file)
}

/// Reads one instruction that a base image or stage brought.
pub fn trigger(node: &Node) -> Result<Step> {
    match instruction(node, &Linter::silent())? {
        Parts::Step(step) => Ok(step),
        Parts::From(_) => Err(Error::new("FROM isn't allowed as an ONBUILD trigger")),
    }
}

fn instruction(node: &Node, linter: &Linter) -> Result<Parts> {
    let linter = linter.with_comments(&node.comments);
    let name = node.keyword.to_ascii_uppercase();
    let instruction = match name.as_str() {
        "FROM" => return from(node, &linter).map(Parts::From),
        "ADD" => copy(node, true)?,
        "COPY" => copy(node, false)?,
        "ARG" => arg(node, &linter)?,
        "CMD" => {
            no_flags(node)?;
            Instruction::Cmd(command_line(&node.args, node.json))
        }
        "ENTRYPOINT" => {
            no_flags(node)?;
            Instruction::Entrypoint(command_line(&node.args, node.json))
        }
        "ENV" => Instruction::Env(pairs(node, "ENV")?),
        "LABEL" => Instruction::Label(pairs(node, "LABEL")?),
        "EXPOSE" => {
            at_least_one(node, "EXPOSE")?;
            no_flags(node)?;
            let mut ports = node.args.clone();
            ports.sort();
            Instruction::Expose(ports)
        }
        "HEALTHCHECK" => healthcheck(node)?,
        "MAINTAINER" => {
            linter.report(&rules::MAINTAINER_DEPRECATED, &node.span(), || {
                "Maintainer instruction is deprecated in favor of using label".to_owned()
            });
            Instruction::Maintainer(exactly_one(node, "MAINTAINER")?)
        }
        "ONBUILD" => onbuild(node)?,
        "RUN" => run(node)?,
        "SHELL" => shell(node)?,
        // Its flags were never looked at.
        "STOPSIGNAL" => match &node.args[..] {
            [signal] => Instruction::StopSignal(signal.clone()),
            _ => return Err(Error::new("STOPSIGNAL requires exactly one argument")),
        },
        "USER" => Instruction::User(exactly_one(node, "USER")?),
        "VOLUME" => {
            at_least_one(node, "VOLUME")?;
            no_flags(node)?;
            let volumes: Vec<String> = node.args.iter().map(|v| v.trim().to_owned()).collect();
            if volumes.iter().any(String::is_empty) {
                return Err(Error::new("VOLUME specified can not be an empty string"));
            }
            Instruction::Volume(volumes)
        }
        "WORKDIR" => Instruction::Workdir(exactly_one(node, "WORKDIR")?),
        _ => {
            let mut error = Error::new(format!("unknown instruction: {}", node.keyword));
            error.hint = suggest::nearest_in_any_case(&node.keyword, KEYWORDS).map(|k| format!("did you mean {k}?"));
            return Err(error);
        }
    };
    Ok(Parts::Step(Step {
        keyword: node.keyword.clone(),
        code: node.original.trim().to_owned(),
        lines: node.span(),
        comments: node.comments.clone(),
        instruction,
    }))
}

fn no_flags(node: &Node) -> Result<()> {
    Flags::parse(&node.flags, &[]).map(drop)
}

fn at_least_one(node: &Node, name: &str) -> Result<()> {
    if node.args.is_empty() {
        return Err(Error::new(format!("{name} requires at least one argument")));
    }
    Ok(())
}

fn exactly_one(node: &Node, name: &str) -> Result<String> {
    let [arg] = &node.args[..] else {
        return Err(Error::new(format!("{name} requires exactly one argument")));
    };
    no_flags(node)?;
    Ok(arg.clone())
}

fn from(node: &Node, linter: &Linter) -> Result<Stage> {
    if let [_, keyword, name] = &node.args[..] {
        if *name != name.to_lowercase() {
            linter
                .report(&rules::STAGE_NAME_CASING, &node.span(), || format!("Stage name '{name}' should be lowercase"));
        }
        let lower = node.keyword == node.keyword.to_lowercase();
        let upper = node.keyword == node.keyword.to_uppercase();
        let matches =
            if lower { *keyword == keyword.to_lowercase() } else { !upper || *keyword == keyword.to_uppercase() };
        if !matches {
            linter.report(&rules::FROM_AS_CASING, &node.span(), || {
                format!("'{keyword}' and '{}' keywords' casing do not match", node.keyword)
            });
        }
    }
    let name = match &node.args[..] {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let letter = |c: char| c.is_ascii_lowercase();
            let valid = lower.starts_with(letter)
                && lower.chars().all(|c| letter(c) || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
            if !valid {
                let message = format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quote(name)
                );
                return Err(Error::new(message).about(name));
            }
            lower
        }
        _ => return Err(Error::new("FROM requires either one or three arguments")),
    };
    let flags = Flags::parse(&node.flags, &[("platform", Kind::Text)])?;
    if !name.is_empty() {
        described("FROM", &[&name], node, linter);
    }
    Ok(Stage {
        description: description(&node.comments, &name),
        name,
        base: node.args[0].clone(),
        platform: flags.text_or_empty("platform"),
        keyword: node.keyword.clone(),
        code: node.original.trim().to_owned(),
        lines: node.span(),
        comments: node.comments.clone(),
        steps: Vec::new(),
    })
}

/// What a comment above says of a name: `# name text`.
fn description(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let of_name = |line: &String| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).map(str::to_owned);
    comments.iter().find_map(of_name).unwrap_or_default()
}

fn described(keyword: &str, names: &[&str], node: &Node, linter: &Linter) {
    let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
    if names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    linter.report(&rules::INVALID_DEFINITION_DESCRIPTION, &node.span(), || {
        format!("Comment for {keyword} should follow the format: `# {example} <description>`")
    });
}

fn arg(node: &Node, linter: &Linter) -> Result<Instruction> {
    at_least_one(node, "ARG")?;
    let mut arguments = Vec::with_capacity(node.args.len());
    for word in &node.args {
        let (name, value) = match word.split_once('=') {
            Some(("", _)) => return Err(Error::new("ARG names can not be blank")),
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let description = description(&node.comments, name);
        arguments.push(Argument { name: name.to_owned(), value, description });
    }
    let names: Vec<&str> = arguments.iter().map(|a| a.name.as_str()).collect();
    described("ARG", &names, node, linter);
    Ok(Instruction::Arg(arguments))
}

fn pairs(node: &Node, name: &str) -> Result<Vec<Pair>> {
    no_flags(node)?;
    at_least_one(node, name)?;
    let mut pairs = Vec::new();
    for part in node.args.chunks(3) {
        let [name_part, value, separator] = part else {
            return Err(Error::new(format!("Bad input to {name}, too many arguments")));
        };
        if name_part.is_empty() {
            return Err(Error::new(format!("{name} names can not be blank")));
        }
        pairs.push(Pair { name: name_part.clone(), value: value.clone(), legacy: separator.is_empty() });
    }
    Ok(pairs)
}

/// A JSON list is the command itself; anything else is one text for the shell.
fn command_line(args: &[String], json: bool) -> CommandLine {
    let words = if json || args.is_empty() { args.to_vec() } else { vec![args.join(" ")] };
    CommandLine { words, shell: !json }
}

fn copy(node: &Node, is_add: bool) -> Result<Instruction> {
    let name = if is_add { "ADD" } else { "COPY" };
    let [sources @ .., dest] = &node.args[..] else { return Err(no_destination(name)) };
    if sources.is_empty() {
        return Err(no_destination(name));
    }
    let mut known = vec![("chown", Kind::Text), ("chmod", Kind::Text), ("link", Kind::Bool), ("exclude", Kind::List)];
    if is_add {
        known.extend([("keep-git-dir", Kind::Bool), ("checksum", Kind::Text), ("unpack", Kind::Bool)]);
    } else {
        known.extend([("from", Kind::Text), ("parents", Kind::Bool)]);
    }
    let flags = Flags::parse(&node.flags, &known)?;
    if heredoc::parse(dest).ok().flatten().is_some() {
        let error = Error::new(format!("{name} cannot accept a heredoc as a destination"));
        return Err(error.about(dest));
    }
    let mut copy = Copy {
        is_add,
        dest: dest.clone(),
        from: flags.text_or_empty("from"),
        chown: flags.text_or_empty("chown"),
        chmod: flags.text_or_empty("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.list("exclude"),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.text_or_empty("checksum"),
        unpack: flags.bool("unpack"),
        ..Copy::default()
    };
    for source in sources {
        let Some(announced) = heredoc::parse(source).ok().flatten() else {
            copy.sources.push(source.clone());
            continue;
        };
        // The last one of a name is the one that stays.
        let content = node.heredocs.iter().rev().find(|h| h.name == announced.name).map(|h| h.content.as_str());
        let content = content.unwrap_or_default();
        copy.inline.push(InlineFile {
            content: if announced.chomp { heredoc::chomped(content) } else { content.to_owned() },
            name: announced.name,
            expand: announced.expand,
        });
    }
    Ok(Instruction::Copy(Box::new(copy)))
}

fn no_destination(name: &str) -> Error {
    Error::new(format!(
        "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
}

fn onbuild(node: &Node) -> Result<Instruction> {
    at_least_one(node, "ONBUILD")?;
    no_flags(node)?;
    match node.args[0].to_ascii_uppercase().as_str() {
        "ONBUILD" => return Err(Error::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        name @ ("MAINTAINER" | "FROM") => {
            let error = Error::new(format!("{name} isn't allowed as an ONBUILD trigger"));
            return Err(error.about(&node.args[0]));
        }
        _ => {}
    }
    let trimmed = node.original.trim_start();
    let mut trigger = trimmed.get("ONBUILD".len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &node.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.content);
        trigger.push_str(&heredoc.name);
    }
    Ok(Instruction::Onbuild(trigger))
}

fn run(node: &Node) -> Result<Instruction> {
    let known = [("mount", Kind::List), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::List)];
    let flags = Flags::parse(&node.flags, &known)?;
    let mounts = flags.list("mount");
    let mount_sources = mounts.iter().map(|m| mount::source_stage(m)).collect::<Result<_>>()?;
    let network = match flags.text("network").unwrap_or("default") {
        "default" => RunNetwork::Default,
        "none" => RunNetwork::None,
        "host" => RunNetwork::Host,
        other => {
            let error = Error::new(format!("invalid network mode {}", quote(other))).about(other);
            return Err(error.did_you_mean(other, ["default", "none", "host"]));
        }
    };
    let insecure = match flags.text("security").unwrap_or("sandbox") {
        "sandbox" => false,
        "insecure" => true,
        other => {
            let error = Error::new(format!("security {} is not valid", quote(other))).about(other);
            return Err(error.did_you_mean(other, ["sandbox", "insecure"]));
        }
    };
    let devices = flags.list("device").iter().map(|d| device(d)).collect::<Result<_>>()?;
    Ok(Instruction::Run(Box::new(Run {
        command: command_line(&node.args, node.json),
        heredocs: node.heredocs.clone(),
        mounts,
        mount_sources,
        network,
        insecure,
        devices,
    })))
}

fn device(text: &str) -> Result<Device> {
    let mut device = Device { name: String::new(), required: false };
    for field in mount::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required =
                    go::parse_bool(value).ok_or_else(|| Error::new(format!("invalid value for {key}: {value}")))?;
            }
            ("name", Some(value)) if device.name.is_empty() => device.name = value.to_owned(),
            ("name", Some(_)) => {
                return Err(Error::new(format!("device name already set to {}", device.name)));
            }
            _ if device.name.is_empty() => device.name = field,
            (_, None) => return Err(Error::new(format!("invalid field '{field}' must be a key=value pair"))),
            (_, Some(_)) => {
                let error = Error::new(format!("unexpected key '{key}' in '{field}'"));
                return Err(error.did_you_mean(&key, ["name", "required"]));
            }
        }
    }
    Ok(device)
}

fn shell(node: &Node) -> Result<Instruction> {
    no_flags(node)?;
    at_least_one(node, "SHELL")?;
    if !node.json {
        let original = node.original.trim();
        let example = original.split_whitespace().skip(1).map(quote).collect::<Vec<_>>().join(", ");
        return Err(
            Error::new("SHELL requires the arguments to be in JSON form").hint(format!("write SHELL [{example}]"))
        );
    }
    Ok(Instruction::Shell(node.args.clone()))
}

fn healthcheck(node: &Node) -> Result<Instruction> {
    at_least_one(node, "HEALTHCHECK")?;
    let kind = node.args[0].to_uppercase();
    let args = &node.args[1..];
    if kind == "NONE" {
        if !args.is_empty() {
            return Err(Error::new("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(Instruction::Healthcheck(Healthcheck { test: vec![kind], ..Healthcheck::default() }));
    }
    let text = Kind::Text;
    let known =
        [("interval", text), ("timeout", text), ("start-period", text), ("start-interval", text), ("retries", text)];
    let flags = Flags::parse(&node.flags, &known)?;
    if kind != "CMD" {
        let error = Error::new(format!("Unknown type {} in HEALTHCHECK (try CMD)", quote(&kind)));
        return Err(error.about(&node.args[0]));
    }
    let command = command_line(args, node.json);
    if command.words.is_empty() {
        return Err(Error::new("Missing command after HEALTHCHECK CMD"));
    }
    let mut test = vec![if node.json { kind } else { "CMD-SHELL".to_owned() }];
    test.extend(command.words);
    let retries = match flags.text("retries") {
        None | Some("") => 0,
        Some(value) => match go::parse_int(value, 32) {
            Some(number) if number < 0 => {
                let error = Error::new(format!("--retries cannot be negative ({number})"));
                return Err(error.about(&number.to_string()));
            }
            Some(number) => number,
            None => return Err(Error::new(format!("--retries: {} is not a number", quote(value)))),
        },
    };
    Ok(Instruction::Healthcheck(Healthcheck {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries,
    }))
}

fn interval(flags: &Flags, name: &str) -> Result<i64> {
    const MILLISECOND: i64 = 1_000_000;
    let nanos = match flags.text(name) {
        None | Some("") => return Ok(0),
        Some(text) => go::parse_duration(text).map_err(|e| Error::new(format!("--{name}: {e}")).about(text))?,
    };
    if nanos != 0 && nanos < MILLISECOND {
        return Err(Error::new(format!("Interval {} cannot be less than 1ms", quote(name))));
    }
    Ok(nanos)
}
