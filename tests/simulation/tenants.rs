//! Whom servers know their clients as, and a tenant whose key is taken away and given back.

use std::path::Path;

use code_explainer::config::Config;

use crate::trace::note;
use crate::world::{below, between, once_in};

/// All that there are.
const ALL: [&str; 3] = ["red", "green", "blue"];

/// The tenants of a world.
#[derive(Clone, Copy)]
pub(crate) struct Tenants {
    /// Those that its servers tell apart; none: all clients are alike.
    pub(crate) names: &'static [&'static str],
    /// The last of them may come without its key.
    pub(crate) shaky: bool,
}

impl Tenants {
    /// As fate has it, with the book of them written anew.
    pub(crate) fn draw(base: &Config) -> Self {
        let names = ALL.get(..between(0, 3) as usize).unwrap_or(&ALL);
        let tenants = Self {
            names,
            shaky: names.len() > 1 && once_in(2),
        };
        tenants.know(base, true);
        tenants
    }

    /// Writes the book where the servers look for it, with all tenants or without the last.
    pub(crate) fn know(self, config: &Config, all: bool) {
        let Some(book) = &config.access.book else {
            return;
        };
        let known = if all { ALL.len() } else { self.names.len() - 1 };
        write(book, &ALL[..known]);
    }

    /// Takes the last one's key away, or gives it back, in a world where that happens.
    pub(crate) fn shake(self, config: &Config) {
        if self.shaky {
            let all = once_in(2);
            note!(
                "the last tenant is {}",
                if all { "known" } else { "not known" }
            );
            self.know(config, all);
        }
    }

    /// What a client has its servers know it by: always, or perhaps not.
    pub(crate) fn token(self, always: bool) -> Option<String> {
        let known = self.names.len() - usize::from(always && self.shaky);
        let tenant = self.names[..known].get(below(known as u64) as usize)?;
        Some(format!("cex_{tenant}"))
    }
}

/// Writes a book of all tenants.
pub(crate) fn write_all(book: &Path) {
    write(book, &ALL);
}

fn write(book: &Path, tenants: &[&str]) {
    let line = |tenant: &&str| {
        let hash = blake3::hash(format!("cex_{tenant}").as_bytes());
        format!("key {tenant} blake3:{hash} tenant={tenant} roles=explain\n")
    };
    let lines: Vec<String> = tenants.iter().map(line).collect();
    std::fs::write(book, lines.concat()).expect("a file of its own");
}
