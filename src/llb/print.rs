//! A graph for people and programs: text, JSON, DOT.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{CUSTOM_NAME, Graph, Vertex, pb};
use crate::base::VertexDigest;

/// What an op does, in a few words.
pub fn summary(op: &pb::Op) -> String {
    match &op.op {
        None => "result".to_owned(),
        Some(pb::op::Op::Source(source)) => source.identifier.clone(),
        Some(pb::op::Op::Exec(exec)) => exec.meta.as_ref().map(|m| m.args.join(" ")).unwrap_or_default(),
        Some(pb::op::Op::File(file)) => file.actions.iter().map(action_summary).collect::<Vec<_>>().join(", "),
        Some(pb::op::Op::Build(_)) => "build".to_owned(),
        Some(pb::op::Op::Merge(_)) => "merge".to_owned(),
        Some(pb::op::Op::Diff(_)) => "diff".to_owned(),
    }
}

fn action_summary(action: &pb::FileAction) -> String {
    use pb::file_action::Action;
    match &action.action {
        None => String::new(),
        Some(Action::Copy(copy)) => format!("copy {} {}", copy.src, copy.dest),
        Some(Action::Mkfile(mkfile)) => format!("mkfile {}", mkfile.path),
        Some(Action::Mkdir(mkdir)) => format!("mkdir {}", mkdir.path),
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(symlink)) => format!("symlink {} -> {}", symlink.newpath, symlink.oldpath),
    }
}

/// One paragraph for each op, in order; ops go by number, so that the text of a small change is a small change.
pub fn text(graph: &Graph) -> String {
    let mut out = String::new();
    for (number, vertex) in graph.vertices().iter().enumerate() {
        let name = vertex.meta.description.get(CUSTOM_NAME).map(|n| format!(" {n}")).unwrap_or_default();
        line(&mut out, format_args!("#{number}{name}"));
        let mut fields = Map::new();
        flatten(&mut fields, "", op_value(&vertex.op));
        for (key, value) in fields {
            line(&mut out, format_args!("  {key}: {value}"));
        }
        let inputs: Vec<String> =
            vertex.inputs().iter().map(|(digest, index)| reference(graph, digest, *index)).collect();
        if !inputs.is_empty() {
            line(&mut out, format_args!("  inputs: {}", inputs.join(" ")));
        }
        if vertex.meta.ignore_cache {
            line(&mut out, format_args!("  ignore cache"));
        }
        if !vertex.meta.caps.is_empty() {
            let caps: Vec<&str> = vertex.meta.caps.keys().map(String::as_str).collect();
            line(&mut out, format_args!("  caps: {}", caps.join(" ")));
        }
        for location in &vertex.locations {
            let (first, last) = (location.lines.start(), location.lines.end());
            let lines = if first == last { first.to_string() } else { format!("{first}-{last}") };
            line(&mut out, format_args!("  at: {}:{lines}", location.file));
        }
    }
    match graph.head() {
        None => line(&mut out, format_args!("result: scratch")),
        Some((digest, index)) => {
            line(&mut out, format_args!("result: {}", reference(graph, &digest, index)));
        }
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{text}");
}

fn reference(graph: &Graph, digest: &VertexDigest, index: usize) -> String {
    let position = graph.position(digest).unwrap_or_default();
    if index == 0 { format!("#{position}") } else { format!("#{position}.{index}") }
}

/// Nested values as dotted keys; what is empty is left out.
fn flatten(into: &mut Map<String, Value>, prefix: &str, value: Value) {
    let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(map) => map.into_iter().for_each(|(key, value)| flatten(into, &join(&key), value)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            list.into_iter().enumerate().for_each(|(i, value)| flatten(into, &join(&i.to_string()), value));
        }
        value => {
            into.insert(prefix.to_owned(), value);
        }
    }
}

/// An array of objects, one for each op, as `buildctl debug dump-llb` prints it: op, digest, metadata.
pub fn json(graph: &Graph) -> Value {
    let vertex = |vertex: &Vertex| {
        json!({
            "Digest": vertex.digest.to_string(),
            "Inputs": vertex.inputs().iter().map(|(digest, index)| json!({
                "digest": digest.to_string(),
                "index": index,
            })).collect::<Vec<_>>(),
            "Op": op_value(&vertex.op),
            "OpMetadata": {
                "caps": vertex.meta.caps,
                "description": vertex.meta.description,
                "ignoreCache": vertex.meta.ignore_cache,
            },
        })
    };
    Value::Array(graph.vertices().iter().map(vertex).collect())
}

/// A drawing for Graphviz.
pub fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph {\n");
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    for vertex in graph.vertices() {
        let shape = match &vertex.op.op {
            Some(pb::op::Op::Source(_)) => "ellipse",
            Some(pb::op::Op::Exec(_)) => "box",
            Some(pb::op::Op::File(_)) => "note",
            Some(pb::op::Op::Merge(_)) => "invtriangle",
            Some(pb::op::Op::Diff(_)) => "doublecircle",
            Some(pb::op::Op::Build(_)) | None => "plaintext",
        };
        let label = escaped(&vertex.name());
        line(&mut out, format_args!("  \"{}\" [label=\"{label}\" shape=\"{shape}\"];", vertex.digest));
    }
    for vertex in graph.vertices() {
        for (i, (input, _)) in vertex.inputs().iter().enumerate() {
            let label = escaped(&edge_label(&vertex.op, i));
            line(&mut out, format_args!("  \"{input}\" -> \"{}\" [label=\"{label}\"];", vertex.digest));
        }
    }
    if let Some((digest, _)) = graph.head() {
        line(&mut out, format_args!("  \"result\" [shape=\"plaintext\"];"));
        line(&mut out, format_args!("  \"{digest}\" -> \"result\";"));
    }
    out.push_str("}\n");
    out
}

/// Where an input goes.
fn edge_label(op: &pb::Op, input: usize) -> String {
    let is = |index: i64| usize::try_from(index) == Ok(input);
    match &op.op {
        Some(pb::op::Op::Exec(exec)) => {
            let mounts = exec.mounts.iter().filter(|m| is(m.input)).map(|m| m.dest.as_str());
            mounts.collect::<Vec<_>>().join(", ")
        }
        Some(pb::op::Op::File(file)) => {
            let copies = file.actions.iter().filter(|a| is(a.secondary_input)).map(action_summary);
            copies.collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

/// An op as JSON, defaults left out.
fn op_value(op: &pb::Op) -> Value {
    let mut out = Map::new();
    match &op.op {
        None => {}
        Some(pb::op::Op::Source(source)) => {
            out.insert("source".into(), compact(json!({ "identifier": source.identifier, "attrs": source.attrs })));
        }
        Some(pb::op::Op::Exec(exec)) => {
            out.insert("exec".into(), exec_value(exec));
        }
        Some(pb::op::Op::File(file)) => {
            let actions: Vec<Value> = file.actions.iter().map(action_value).collect();
            out.insert("file".into(), json!({ "actions": actions }));
        }
        Some(pb::op::Op::Build(build)) => {
            out.insert("build".into(), compact(json!({ "builder": build.builder, "attrs": build.attrs })));
        }
        Some(pb::op::Op::Merge(merge)) => {
            let inputs: Vec<i64> = merge.inputs.iter().map(|i| i.input).collect();
            out.insert("merge".into(), json!({ "inputs": inputs }));
        }
        Some(pb::op::Op::Diff(diff)) => {
            let (lower, upper) = (diff.lower.map(|l| l.input), diff.upper.map(|u| u.input));
            out.insert("diff".into(), json!({ "lower": lower, "upper": upper }));
        }
    }
    if let Some(platform) = &op.platform {
        let parts = [&platform.os, &platform.architecture, &platform.variant];
        let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
        out.insert("platform".into(), parts.join("/").into());
    }
    Value::Object(out)
}

fn exec_value(exec: &pb::ExecOp) -> Value {
    let meta = exec.meta.clone().unwrap_or_default();
    let mounts: Vec<Value> = exec.mounts.iter().map(mount_value).collect();
    let proxy = meta.proxy_env.map(|p| {
        compact(json!({
            "http": p.http_proxy, "https": p.https_proxy, "ftp": p.ftp_proxy, "no": p.no_proxy, "all": p.all_proxy,
        }))
    });
    compact(json!({
        "args": meta.args,
        "env": meta.env,
        "cwd": meta.cwd,
        "user": meta.user,
        "hostname": meta.hostname,
        "cgroupParent": meta.cgroup_parent,
        "proxy": proxy,
        "extraHosts": meta.extra_hosts.iter().map(|h| format!("{}={}", h.host, h.ip)).collect::<Vec<_>>(),
        "ulimit": meta.ulimit.iter().map(|u| format!("{}={}:{}", u.name, u.soft, u.hard)).collect::<Vec<_>>(),
        "validExitCodes": meta.valid_exit_codes,
        "mounts": mounts,
        "network": match pb::NetMode::try_from(exec.network) {
            Ok(pb::NetMode::Host) => "host",
            Ok(pb::NetMode::None) => "none",
            _ => "",
        },
        "insecure": exec.security == i32::from(pb::SecurityMode::Insecure),
        "secretEnv": exec.secretenv.iter().map(|s| {
            format!("{}={}{}", s.name, s.id, if s.optional { " (optional)" } else { "" })
        }).collect::<Vec<_>>(),
        "devices": exec.cdi_devices.iter().map(|d| d.name.clone()).collect::<Vec<_>>(),
    }))
}

fn mount_value(mount: &pb::Mount) -> Value {
    let kind = match pb::MountType::try_from(mount.mount_type) {
        Ok(pb::MountType::Secret) => "secret",
        Ok(pb::MountType::Ssh) => "ssh",
        Ok(pb::MountType::Cache) => "cache",
        Ok(pb::MountType::Tmpfs) => "tmpfs",
        _ => "",
    };
    let sharing = mount.cache_opt.as_ref().map(|c| match pb::CacheSharingOpt::try_from(c.sharing) {
        Ok(pb::CacheSharingOpt::Private) => "private",
        Ok(pb::CacheSharingOpt::Locked) => "locked",
        _ => "shared",
    });
    let file = mount
        .secret_opt
        .as_ref()
        .map(|s| (&s.id, s.uid, s.gid, s.mode, s.optional))
        .or(mount.ssh_opt.as_ref().map(|s| (&s.id, s.uid, s.gid, s.mode, s.optional)));
    let mut out = json!({
        "dest": mount.dest,
        "selector": mount.selector,
        "readonly": mount.readonly,
        "type": kind,
        "cache": mount.cache_opt.as_ref().map(|c| c.id.clone()),
        "sharing": sharing,
        "size": mount.tmpfs_opt.map_or(0, |t| t.size),
    });
    // The numbers say something even where they are the default.
    if let (Value::Object(map), "") = (&mut out, kind) {
        map.insert("input".into(), mount.input.to_string().into());
        map.insert("output".into(), mount.output.to_string().into());
    }
    if let (Value::Object(map), Some((id, uid, gid, mode, optional))) = (&mut out, file) {
        map.insert("id".into(), id.clone().into());
        map.insert("owner".into(), format!("{uid}:{gid}").into());
        map.insert("mode".into(), format!("{mode:o}").into());
        map.insert("optional".into(), optional.into());
    }
    compact(out)
}

fn action_value(action: &pb::FileAction) -> Value {
    use pb::file_action::Action;
    let time = |t: i64| (t != super::file::NO_TIMESTAMP).then_some(t);
    let octal = |m: i32| (m != super::file::NO_MODE).then(|| format!("{m:o}"));
    let mut out = match &action.action {
        None => json!({}),
        Some(Action::Copy(c)) => json!({ "copy": compact(json!({
            "src": c.src,
            "dest": c.dest,
            "owner": owner_text(c.owner.as_ref()),
            "mode": if c.mode_str.is_empty() { octal(c.mode) } else { Some(c.mode_str.clone()) },
            "followSymlink": c.follow_symlink,
            "dirCopyContents": c.dir_copy_contents,
            "attemptUnpack": c.attempt_unpack_docker_compatibility,
            "createDestPath": c.create_dest_path,
            "allowWildcard": c.allow_wildcard,
            "allowEmptyWildcard": c.allow_empty_wildcard,
            "alwaysReplace": c.always_replace_existing_dest_paths,
            "include": c.include_patterns,
            "exclude": c.exclude_patterns,
            "required": c.required_paths,
            "timestamp": time(c.timestamp),
        }))}),
        Some(Action::Mkfile(m)) => json!({ "mkfile": compact(json!({
            "path": m.path,
            "mode": octal(m.mode),
            "data": String::from_utf8_lossy(&m.data),
            "owner": owner_text(m.owner.as_ref()),
            "timestamp": time(m.timestamp),
        }))}),
        Some(Action::Mkdir(m)) => json!({ "mkdir": compact(json!({
            "path": m.path,
            "mode": octal(m.mode),
            "parents": m.make_parents,
            "owner": owner_text(m.owner.as_ref()),
            "timestamp": time(m.timestamp),
        }))}),
        Some(Action::Rm(r)) => json!({ "rm": compact(json!({
            "path": r.path,
            "allowNotFound": r.allow_not_found,
            "allowWildcard": r.allow_wildcard,
        }))}),
        Some(Action::Symlink(s)) => json!({ "symlink": compact(json!({
            "oldpath": s.oldpath,
            "newpath": s.newpath,
            "owner": owner_text(s.owner.as_ref()),
            "timestamp": time(s.timestamp),
        }))}),
    };
    if let Value::Object(map) = &mut out {
        let io = format!("{},{} -> {}", action.input, action.secondary_input, action.output);
        map.insert("io".into(), io.into());
    }
    out
}

fn owner_text(owner: Option<&pb::ChownOpt>) -> Option<String> {
    use pb::user_opt::User;
    let part = |user: &pb::UserOpt| match &user.user {
        Some(User::ById(id)) => id.to_string(),
        Some(User::ByName(named)) => format!("{}@{}", named.name, named.input),
        None => String::new(),
    };
    let owner = owner?;
    let user = owner.user.as_ref().map(part).unwrap_or_default();
    Some(match &owner.group {
        Some(group) => format!("{user}:{}", part(group)),
        None => user,
    })
}

/// Without nulls, empty texts, empty lists, zeros and falses.
fn compact(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(true) => true,
    };
    Value::Object(map.into_iter().filter(|(_, value)| says_something(value)).collect())
}
