//! What it costs to look for secrets: in code as it is, and in text that is made of nothing but the words that secrets
//! stand beside.

use std::hint::black_box;

use code_explainer_code::redact::redact;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// The largest snippet that a server takes by default.
const BYTES: usize = 64 << 10;

/// This project's own sources, which have no secrets.
fn code() -> String {
    let files = [
        include_str!("../server/explain/flight.rs"),
        include_str!("../server/scheduler/policy.rs"),
        include_str!("../server/session/mod.rs"),
        include_str!("../tests/clients/python/acceptance.py"),
        include_str!("../tests/clients/node/acceptance.js"),
    ];
    whole(&files.concat())
}

fn hostile() -> String {
    whole(
        "password token secret api_key AKIA eyJ sk- pwd:// authorization aws SK hf_ PRIVATE KEY\n",
    )
}

fn whole(text: &str) -> String {
    let text = text.repeat(BYTES / text.len() + 1);
    text[..text.floor_char_boundary(BYTES)].to_owned()
}

fn look(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redact");
    for (name, text) in [("code", code()), ("hostile", hostile())] {
        assert_eq!(redact(&text), None, "{name} has no secrets");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| redact(black_box(&text))));
    }
    group.finish();
}

criterion_group!(benches, look);
criterion_main!(benches);
