//! A target as the words of a build.

use super::target::Target;

/// The command line that builds a target. Contexts that are results of other targets stay `target:NAME`.
pub fn words(target: &Target) -> Vec<String> {
    let mut words = Vec::new();
    let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    for (name, value) in &target.args {
        option("build-arg", named(name, value.as_deref(), "="));
    }
    for (name, value) in &target.labels {
        option("label", named(name, Some(value.as_deref().unwrap_or_default()), "="));
    }
    for (name, value) in &target.extra_hosts {
        for ip in value.as_deref().unwrap_or_default().split(',') {
            option("add-host", named(name, Some(ip), "="));
        }
    }
    for (name, value) in &target.contexts {
        option("build-context", named(name, Some(value.as_deref().unwrap_or_default()), "="));
    }
    let each = [
        ("tag", target.tags.as_deref().unwrap_or_default()),
        ("platform", target.platforms.as_deref().unwrap_or_default()),
        ("no-cache-filter", &target.no_cache_filter),
        ("ulimit", &target.ulimits),
        ("annotation", &target.annotations),
    ];
    for (name, values) in each {
        values.iter().for_each(|value| option(name, value.clone()));
    }
    target.attest.iter().for_each(|spec| option("attest", spec.to_word()));
    target.cache_from.iter().for_each(|spec| option("cache-from", spec.to_word()));
    target.cache_to.iter().flatten().for_each(|spec| option("cache-to", spec.to_word()));
    target.secret.iter().for_each(|spec| option("secret", spec.to_word()));
    target.output.iter().flatten().for_each(|spec| option("output", spec.to_word()));
    for spec in &target.ssh {
        let word = match spec.get("paths") {
            "" => spec.get("id").to_owned(),
            paths => format!("{}={paths}", spec.get("id")),
        };
        option("ssh", word);
    }
    let one = [
        ("target", &target.target),
        ("network", &target.network),
        ("shm-size", &target.shm_size),
        ("call", &target.call),
    ];
    for (name, value) in one {
        value.iter().for_each(|value| option(name, value.clone()));
    }
    let context = target.context.as_deref().unwrap_or(".");
    if let Some(file) = target.dockerfile.as_deref().filter(|file| *file != "Dockerfile" && !file.is_empty()) {
        // It lies in the context, wherever that is.
        let is_here = !context.contains("://") && !context.starts_with("git@") && context != "-";
        let file = if is_here && !file.starts_with('/') && !file.contains("://") {
            format!("{}/{file}", context.trim_end_matches('/'))
        } else {
            file.to_owned()
        };
        option("file", file);
    }
    for (name, on) in [("pull", target.pull), ("no-cache", target.no_cache)] {
        if on == Some(true) {
            words.push(format!("--{name}"));
        }
    }
    words.extend(["--".to_owned(), context.to_owned()]);
    words
}

fn named(name: &str, value: Option<&str>, sign: &str) -> String {
    match value {
        Some(value) => format!("{name}{sign}{value}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_target_reaches_the_build() {
        let target: Target = serde_json::from_str(
            r#"{"args": {"A": "1", "B": null}, "labels": {"l": "m"}, "extra-hosts": {"h": "1.2.3.4"},
                "contexts": {"lib": "target:lib", "src": "../src"}, "tags": ["a:1"], "platforms": ["linux/amd64"],
                "no-cache-filter": ["x"], "ulimits": ["core=0"], "annotations": ["k=v"], "cache-from": ["r/c"],
                "secret": ["id=x"], "ssh": ["default", "k=/s"], "output": ["out"], "target": "final", "network": "none",
                "shm-size": "1m", "pull": true, "no-cache": true, "context": "dir/", "dockerfile": "sub/Dockerfile"}"#,
        )
        .unwrap();
        let expected = "--build-arg A=1 --build-arg B --label l=m --add-host h=1.2.3.4 \
                        --build-context lib=target:lib --build-context src=../src --tag a:1 \
                        --platform linux/amd64 --no-cache-filter x --ulimit core=0 --annotation k=v \
                        --cache-from ref=r/c,type=registry --secret id=x --output dest=out,type=local --ssh default \
                        --ssh k=/s --target final --network none --shm-size 1m --file dir/sub/Dockerfile --pull --no-cache \
                        -- dir/";
        assert_eq!(words(&target).join(" "), expected);
    }
}
