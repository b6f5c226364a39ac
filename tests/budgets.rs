//! The budgets of memory in SECURITY.md add up to what it says, and to what `serve --help` says.

use crate::common::programs::{output, server};

const SECURITY: &str = include_str!("../SECURITY.md");

/// The bytes of a row of the table of budgets, and whether it is the sum.
fn row(line: &str) -> Option<(bool, u64)> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
    let [what, .., bytes, _] = cells[..] else {
        return None;
    };
    let sum = what.starts_with("**");
    let digits: String = bytes.chars().filter(char::is_ascii_digit).collect();
    Some((sum, digits.parse().ok()?))
}

#[test]
fn the_budgets_add_up_to_what_is_said_of_them() {
    let table = SECURITY.split("## Budgets").nth(1).expect("it is there");
    let table = table
        .split("Bounds of other things")
        .next()
        .expect("a text");
    let rows: Vec<(bool, u64)> = table.lines().filter_map(row).collect();
    assert!(rows.len() > 10, "{} rows", rows.len());
    let parts: u64 = (rows.iter().filter(|(sum, _)| !sum))
        .map(|(_, bytes)| bytes)
        .sum();
    let sums: Vec<_> = rows.iter().filter(|(sum, _)| *sum).collect();
    assert_eq!(sums, [&(true, parts)]);
    let told = format!("{:.2} GiB", parts as f64 / f64::from(1 << 30));
    assert!(SECURITY.contains(&told), "{told}");
    let help = output(&mut server(&["serve", "--help"]));
    let help = String::from_utf8_lossy(&help.stdout).replace(['\n', ' '], "");
    assert!(help.contains(&told.replace(' ', "")), "{told}");
}
