//! The features of languages that have no outline. They are known so that their code is not taken for another's.

mod compiled;
mod data;
mod declarative;
mod scripts;

use super::features::Feature;

pub(super) use data::STATEMENTS;

/// Name and features of each. [`DATA`] stand apart.
pub(super) const OTHERS: &[(&str, &[Feature])] = &[
    ("sql", declarative::SQL),
    ("shell", scripts::SHELL),
    ("ruby", scripts::RUBY),
    ("php", scripts::PHP),
    ("perl", scripts::PERL),
    ("c#", compiled::C_SHARP),
    ("kotlin", compiled::KOTLIN),
    ("scala", compiled::SCALA),
    ("swift", compiled::SWIFT),
    ("lua", scripts::LUA),
    ("r", scripts::R),
    ("haskell", compiled::HASKELL),
    ("elixir", scripts::ELIXIR),
    ("dart", compiled::DART),
    ("objective-c", compiled::OBJECTIVE_C),
    ("dockerfile", declarative::DOCKERFILE),
    ("makefile", declarative::MAKEFILE),
    ("powershell", scripts::POWERSHELL),
    ("hcl", declarative::HCL),
    ("latex", declarative::LATEX),
    ("matlab", scripts::MATLAB),
];

/// Formats without statements, which look like parts of programs: a table of a program's data, the text that it prints.
pub(super) const DATA: &[(&str, &[Feature])] = &[
    ("html", data::HTML),
    ("css", data::CSS),
    ("json", data::JSON),
    ("yaml", data::YAML),
    ("toml", data::TOML),
    ("markdown", data::MARKDOWN),
];
