//! The rules' names and what they are about.

/// One lint rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// BuildKit's name for it, which `check=skip=` takes.
    pub name: &'static str,
    pub description: &'static str,
    /// Silent unless it is asked for.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, description: &'static str) -> Self {
        Self { name, description, experimental: false }
    }

    /// Where the rule is explained.
    pub fn url(&self) -> String {
        // This one never had a page.
        if *self == INVALID_BASE_IMAGE_PLATFORM {
            return String::new();
        }
        let mut page = String::new();
        let mut chars = self.name.chars().peekable();
        let mut last_lower = false;
        while let Some(c) = chars.next() {
            // `JSONArgs`: the capital that starts the next word is the one before a small letter.
            let starts = c.is_ascii_uppercase() && (last_lower || chars.peek().is_some_and(char::is_ascii_lowercase));
            if starts && !page.is_empty() {
                page.push('-');
            }
            page.push(c.to_ascii_lowercase());
            last_lower = c.is_ascii_lowercase();
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{page}/")
    }
}

pub static STAGE_NAME_CASING: Rule = Rule::new("StageNameCasing", "Stage names should be lowercase");
pub static FROM_AS_CASING: Rule =
    Rule::new("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword");
pub static NO_EMPTY_CONTINUATION: Rule =
    Rule::new("NoEmptyContinuation", "Empty continuation lines will become errors in a future release");
pub static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);
pub static DUPLICATE_STAGE_NAME: Rule = Rule::new("DuplicateStageName", "Stage names should be unique");
pub static RESERVED_STAGE_NAME: Rule =
    Rule::new("ReservedStageName", "Reserved words should not be used as stage names");
pub static JSON_ARGS_RECOMMENDED: Rule = Rule::new(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);
pub static MAINTAINER_DEPRECATED: Rule = Rule::new(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);
pub static UNDEFINED_ARG_IN_FROM: Rule = Rule::new("UndefinedArgInFrom", "FROM command must use declared ARGs");
pub static WORKDIR_RELATIVE_PATH: Rule = Rule::new(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);
pub static UNDEFINED_VAR: Rule = Rule::new("UndefinedVar", "Variables should be defined before their use");
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);
pub static LEGACY_KEY_VALUE_FORMAT: Rule =
    Rule::new("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used");
pub static INVALID_BASE_IMAGE_PLATFORM: Rule =
    Rule::new("InvalidBaseImagePlatform", "Base image platform does not match expected target platform");
pub static REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule =
    Rule::new("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands");
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule =
    Rule::new("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name");
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule =
    Rule::new("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value");
pub static COPY_IGNORED_FILE: Rule =
    Rule::new("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore");
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule {
    experimental: true,
    ..Rule::new(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    )
};
pub static EXPOSE_PROTO_CASING: Rule =
    Rule::new("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase");
pub static EXPOSE_INVALID_FORMAT: Rule = Rule::new(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_page() {
        let page = |rule: &Rule| rule.url().rsplit('/').nth(1).map(str::to_owned).unwrap_or_default();
        assert_eq!(page(&JSON_ARGS_RECOMMENDED), "json-args-recommended");
        assert_eq!(page(&SECRETS_USED_IN_ARG_OR_ENV), "secrets-used-in-arg-or-env");
        assert_eq!(page(&FROM_AS_CASING), "from-as-casing");
        assert_eq!(INVALID_BASE_IMAGE_PLATFORM.url(), "");
    }
}
