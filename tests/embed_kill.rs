//! `kill -9` of a process that is writing vectors: the file opens, no vector is wrong, and what was said to be synced is
//! there.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use code_explainer::embed::{CacheLimits, Embedding, VectorCache, VectorKey};

/// The directory of the process that writes; only set there.
const PLACE: &str = "CODE_EXPLAINER_TEST_WRITER";
const DIMENSIONS: usize = 384;
const LIMITS: CacheLimits = CacheLimits {
    entries: 100_000,
    bytes: 1 << 30,
};
const ROUNDS: u64 = 25;

fn key(n: u64) -> VectorKey {
    VectorKey::new(b"salt", "model", &n.to_string())
}

fn vector(n: u64) -> Embedding {
    Embedding {
        values: (0..DIMENSIONS as u64)
            .map(|i| (n * 1000 + i) as f32)
            .collect(),
        tokens: 3,
        truncated: false,
        cached: true,
    }
}

fn open(place: &Path) -> VectorCache {
    VectorCache::open(Some(place), "model", DIMENSIONS, LIMITS).expect("the cache opens")
}

/// Writes from `first` on until it is killed; says each number up to which all is synced.
fn write(place: &Path, first: u64) {
    let cache = open(place);
    for n in first.. {
        cache.put(key(n), &vector(n));
        println!("put {n}");
        if n % 7 == 0 {
            cache.flush();
            println!("synced {n}");
        }
    }
}

/// As a test it checks its own argument; as the process that is killed, it writes.
#[test]
fn a_process_that_writes() {
    match std::env::var(PLACE) {
        Ok(argument) => {
            let (first, place) = argument.split_once(' ').expect("a number and a place");
            write(Path::new(place), first.parse().expect("a number"));
        }
        Err(unset) => assert_eq!(unset, std::env::VarError::NotPresent),
    }
}

#[test]
fn nothing_wrong_is_found_after_kill_9() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut next, mut unsynced) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "embed_kill::a_process_that_writes",
                "--exact",
                "--nocapture",
            ])
            .env(PLACE, format!("{next} {}", directory.path().display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let mut synced = None;
        // Killed in another moment in each round: while it gathers, and while it syncs.
        let mut puts = 8 + round * 5 % 37;
        for line in said.lines().map_while(Result::ok) {
            if let Some((_, n)) = line.split_once("synced ") {
                synced = Some(n.trim().parse::<u64>().expect("a number"));
            } else if line.contains("put ") {
                puts = puts.saturating_sub(1);
            }
            if puts == 0 && synced.is_some() {
                break;
            }
        }
        child.kill().expect("killed");
        child.wait().expect("it is gone");
        let synced = synced.expect("it wrote");
        let cache = open(directory.path());
        let keys: Vec<VectorKey> = (0..synced + 2000).map(key).collect();
        let found = cache.get(&keys);
        for (n, embedding) in found.iter().enumerate() {
            if let Some(embedding) = embedding {
                assert_eq!(embedding, &vector(n as u64), "round {round}");
            }
        }
        // Batches are synced whole and in order: what is there has no gap.
        let last = found.iter().rposition(Option::is_some).expect("some") as u64;
        assert!(
            last >= synced,
            "round {round}: {synced} was synced, {last} is the last"
        );
        assert!(
            found[..=last as usize].iter().all(Option::is_some),
            "round {round}: a gap"
        );
        let stats = cache.stats();
        assert_eq!((stats.broken, stats.dropped), (0, 0), "round {round}");
        unsynced += last - synced;
        next = last + 1;
    }
    println!(
        "{ROUNDS} rounds, {next} vectors, {unsynced} of them beyond the last word of the process"
    );
}
