//! Features of languages that describe rather than instruct.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(super) const SQL: &[Feature] = &[
    (
        5,
        That(|l| {
            sql(
                l,
                &[
                    "SELECT ",
                    "INSERT INTO ",
                    "CREATE TABLE",
                    "DELETE FROM ",
                    "ALTER TABLE ",
                    "DROP TABLE ",
                    "CREATE INDEX",
                    "CREATE VIEW",
                ],
            )
        }),
    ),
    (4, Starts("UPDATE ")),
    (
        3,
        That(|l| {
            sql(
                l,
                &[
                    "FROM ",
                    "WHERE ",
                    "GROUP BY ",
                    "ORDER BY ",
                    "HAVING ",
                    "LIMIT ",
                    "VALUES ",
                    "SET ",
                ],
            )
        }),
    ),
    (4, That(|l| l.contains("JOIN ") && l.contains(" ON "))),
    (
        3,
        That(|l| l.contains("PRIMARY KEY") || l.contains("NOT NULL") || l.contains("VARCHAR(")),
    ),
    (
        3,
        That(|l| l.starts_with("select ") && l.contains(" from ") && l.ends_with(';')),
    ),
];

pub(super) const DOCKERFILE: &[Feature] = &[
    (4, That(|l| l.starts_with("FROM ") && !l.contains(','))),
    (4, Starts("RUN ")),
    (4, That(|l| starts_any(l, &["COPY ", "ADD "]))),
    (4, Starts("WORKDIR ")),
    (5, That(|l| starts_any(l, &["CMD [", "ENTRYPOINT ["]))),
    (3, That(|l| starts_any(l, &["ENV ", "EXPOSE ", "ARG "]))),
];

pub(super) const MAKEFILE: &[Feature] = &[
    (8, Starts(".PHONY")),
    (4, Has("$(CC)")),
    (4, That(|l| l.contains("$@") && l.contains("$<"))),
    (3, That(|l| l.contains(" := $(") || l.contains(" ?= "))),
];

pub(super) const HCL: &[Feature] = &[
    (
        8,
        That(|l| {
            starts_any(
                l,
                &[
                    "resource \"",
                    "variable \"",
                    "provider \"",
                    "data \"",
                    "module \"",
                    "output \"",
                ],
            ) && l.ends_with('{')
        }),
    ),
    (3, Has("var.")),
];

pub(super) const LATEX: &[Feature] = &[(
    6,
    That(|l| {
        starts_any(
            l,
            &[
                "\\begin{",
                "\\end{",
                "\\section",
                "\\usepackage",
                "\\documentclass",
            ],
        )
    }),
)];

/// A clause in capitals, or in any case when the statement ends with the line.
fn sql(line: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| line.starts_with(start))
        || (line.ends_with(';')
            && starts.iter().any(|start| {
                line.as_bytes()
                    .get(..start.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
            }))
}
