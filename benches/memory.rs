//! Memory of a server with the model loaded, against what it must hold: `cargo bench --bench memory`.
//!
//! Prints a table and writes `target/bench/memory.json`. The bound at fp32 is the weights, the KV pool and 400 MB.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const ALLOWED_MIB: f64 = 400.0;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<serde_json::Value> = [
        ("native", "fp32"),
        ("eager", "fp32"),
        ("eager", "bf16"),
        ("native", "int8"),
        ("native", "int4"),
    ]
    .into_iter()
    .map(|(engine, precision)| measure(engine, precision))
    .collect::<Result<_, _>>()?;
    println!(
        "{:<8}{:<6}{:>10}{:>10}{:>10}{:>10}",
        "engine", "", "weights", "KV pool", "RSS", "more"
    );
    for row in &rows {
        let mib = |name: &str| row[name].as_f64().unwrap_or_default();
        let more = mib("rss_mib") - mib("weights_mib") - mib("kv_pool_mib");
        println!(
            "{:<8}{:<6}{:>10.0}{:>10.0}{:>10.0}{more:>10.0} MiB {}",
            row["engine"].as_str().unwrap_or_default(),
            row["precision"].as_str().unwrap_or_default(),
            mib("weights_mib"),
            mib("kv_pool_mib"),
            mib("rss_mib"),
            if more <= ALLOWED_MIB {
                "within 400"
            } else {
                "OVER 400"
            },
        );
    }
    std::fs::create_dir_all("target/bench")?;
    std::fs::write(
        "target/bench/memory.json",
        serde_json::to_string_pretty(&rows)?,
    )?;
    Ok(())
}

fn measure(engine: &str, precision: &str) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let mut server = Command::new(env!("CARGO_BIN_EXE_code-explainer-server"))
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ])
        .args([
            "--device",
            "cpu",
            "--engine",
            engine,
            "--precision",
            precision,
        ])
        .stderr(Stdio::piped())
        .spawn()?;
    let log = BufReader::new(server.stderr.take().ok_or("no log")?);
    let mut http = String::new();
    for line in log.lines() {
        let line = line?;
        if let Some((_, address)) = line.split_once("http listening address=") {
            http = address.trim().to_owned();
        }
        if line.ends_with("ready") {
            break;
        }
    }
    let mut connection = TcpStream::connect(&http)?;
    write!(
        connection,
        "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    server.kill()?;
    server.wait()?;
    let mib = |kind: &str| -> Option<f64> {
        let name = format!("memory_usage_mb{{type=\"{kind}\"}} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&name)?.parse().ok())
    };
    Ok(serde_json::json!({
        "engine": engine,
        "precision": precision,
        "weights_mib": mib("weights").ok_or("no weights")?,
        "kv_pool_mib": mib("kv_pool").ok_or("no pool")?,
        "rss_mib": mib("cpu").ok_or("no process")?,
    }))
}
