//! Numbers as a person reads them.

use code_explainer_client::proto::CacheEvictions;
use code_explainer_client::{CacheLevel, Done};

/// With commas between thousands: 1,247.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of parameters: 135M, 1.5B.
pub(crate) fn parameters(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 999.5e6 => format!("{:.1}B", n / 1e9),
        n if n >= 999.5e3 => format!("{:.0}M", n / 1e6),
        n => grouped(n as u64),
    }
}

/// A number of bytes: 24.6 kB, 245.6 MB.
pub(crate) fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        1_000_000.. => (1e6, "MB"),
        _ => (1e3, "kB"),
    };
    let tenths = (bytes as f64 * 10.0 / unit).round() as u64;
    format!("{}.{} {name}", grouped(tenths / 10), tenths % 10)
}

/// A time given in milliseconds: 0.4 ms, 210 ms, 3.1 s.
pub(crate) fn millis(ms: f64) -> String {
    match ms {
        ms if ms >= 999.5 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 9.95 => format!("{ms:.0} ms"),
        ms if ms > 0.0 => format!("{ms:.1} ms"),
        _ => "0 ms".to_owned(),
    }
}

/// A time given in microseconds: 0.9 µs, 12 µs, 3.1 ms.
pub(crate) fn micros(us: f64) -> String {
    match us {
        us if us >= 999.5 => format!("{:.1} ms", us / 1e3),
        us if us >= 9.95 => format!("{us:.0} µs"),
        us => format!("{us:.1} µs"),
    }
}

/// Entries that left a cache: 12 expired, 3 bytes; none.
pub(crate) fn evictions(by_cause: &[CacheEvictions]) -> String {
    let told = by_cause.iter().filter(|e| e.count > 0);
    let told: Vec<_> = told
        .map(|e| format!("{} {}", grouped(e.count), e.cause))
        .collect();
    match told.is_empty() {
        true => "none".to_owned(),
        false => told.join(", "),
    }
}

/// A time given in seconds, for how long is left or has passed: 45 s, 3 min 20 s, 2 h 5 min.
pub(crate) fn seconds(seconds: f64) -> String {
    let s = if seconds.is_finite() && seconds > 0.0 {
        seconds.round() as u64
    } else {
        0
    };
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// How an answer was made, in one line. One that was replayed has no speed or batch to speak of.
pub(crate) fn receipt(done: &Done) -> String {
    let (usage, receipt) = (&done.usage, &done.receipt);
    let mut parts = vec![format!("{} {}", receipt.model, receipt.precision)];
    let total_ms = receipt.queue_ms + receipt.prefill_ms + receipt.decode_ms;
    let tokens = format!("{} tokens in {}", usage.generated_tokens, millis(total_ms));
    let replayed = match receipt.cache {
        CacheLevel::Computed => None,
        CacheLevel::Memory => Some("replayed from memory"),
        CacheLevel::Redis => Some("replayed from Redis"),
        CacheLevel::Unknown => Some("replayed"),
    };
    if let Some(replayed) = replayed {
        parts.push(format!("{tokens}, {replayed}"));
        parts.push(format!("prompt {}", usage.prompt_tokens));
    } else {
        let rate = f64::from(usage.generated_tokens) / (total_ms / 1e3).max(f64::MIN_POSITIVE);
        let (prompt, cached) = (usage.prompt_tokens, usage.cached_tokens);
        parts.push(format!("{tokens} ({rate:.1} tok/s)"));
        parts.push(format!(
            "first token {}",
            millis(receipt.time_to_first_token_ms)
        ));
        // A server that does not tell how busy it is with others says nothing of the queue and of the batch.
        let told = receipt.largest_batch > 0;
        if told {
            parts.push(format!("queue {}", millis(receipt.queue_ms)));
        }
        parts.push(format!("prefill {}", millis(receipt.prefill_ms)));
        parts.push(format!("prompt {prompt} ({cached} cached)"));
        if told {
            parts.push(format!("batch ≤ {}", receipt.largest_batch));
        }
    }
    parts.push(format!("replica {}", receipt.replica));
    parts.push(format!("seed {}", receipt.seed));
    parts.push(done.finish_reason.as_str().to_owned());
    if !receipt.sources.is_empty() {
        let sources = receipt.sources.iter().map(|source| source.id.as_str());
        parts.push(format!("quotes {}", sources.collect::<Vec<_>>().join(", ")));
    }
    parts.extend(receipt.notes.iter().map(|note| format!("note: {note}")));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [12_000, 134_515_008, 999_999_999, 1_543_714_304].map(parameters),
            ["12,000", "135M", "1.0B", "1.5B"]
        );
        assert_eq!(
            [0, 24_562, 1_024_800_000].map(size),
            ["0.0 kB", "24.6 kB", "1,024.8 MB"]
        );
        assert_eq!(
            [0.0, 0.42, 9.99, 210.4, 999.7, 3100.0].map(millis),
            ["0 ms", "0.4 ms", "10 ms", "210 ms", "1.0 s", "3.1 s"]
        );
        assert_eq!(
            [0.2, 45.0, 200.0, 7500.0, 90_000.0, f64::INFINITY].map(seconds),
            ["0 s", "45 s", "3 min 20 s", "2 h 5 min", "1 d 1 h", "0 s"]
        );
    }
}
