//! The parsed Dockerfile in BuildKit's dump notation: one parenthesis for each instruction.

use super::Error;
use super::go;
use super::parser::{self, Node, Source};

/// Parses a Dockerfile and prints what was read.
pub fn dump(name: &str, text: &[u8]) -> Result<String, Error> {
    let parsed = parser::parse(&Source::new(name, text))?;
    let lines: String = parsed.nodes.iter().map(|n| format!("({})\n", node(n))).collect();
    Ok(lines.trim().to_owned())
}

fn node(node: &Node) -> String {
    let mut out = node.keyword.to_lowercase();
    if !node.flags.is_empty() {
        out.push(' ');
        out.push_str(&go::quoted_list(&node.flags));
    }
    match &node.inner {
        Some(inner) => out.push_str(&format!(" ({})", self::node(inner))),
        None => node.args.iter().for_each(|arg| {
            out.push(' ');
            out.push_str(&go::quote(arg));
        }),
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::dump;

    #[test]
    fn prints_one_parenthesis_for_each_instruction() {
        let text = "# escape=`\nFROM a AS b\nRUN --mount=x [\"c\", \"d\"]\nenv x=y\nONBUILD run foo `\n  bar\n";
        assert_eq!(
            dump("Dockerfile", text.as_bytes()).unwrap(),
            "(from \"a\" \"AS\" \"b\")\n(run [\"--mount=x\"] \"c\" \"d\")\n(env \"x\" \"y\" \"=\")\n(onbuild (run \"foo   bar\"))"
        );
    }
}
