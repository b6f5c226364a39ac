//! Explains files: ask ADDRESS FILE...

use std::io::Write;
use std::process::ExitCode;

use code_explainer_client::{Client, Event, Item};
use futures::StreamExt;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_default();
    let client = match Client::connect(&address) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let mut end = ExitCode::SUCCESS;
    for path in arguments {
        match ask(&client, &path).await {
            Ok(()) => println!("\n[{path}]"),
            Err(error) => {
                eprintln!("{path}: {error}");
                end = ExitCode::FAILURE;
            }
        }
    }
    end
}

async fn ask(client: &Client, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let code = std::fs::read_to_string(path)?;
    let mut explanation = client.explain(Item::new(code)).await?;
    while let Some(event) = explanation.next().await {
        if let Event::Delta(delta) = event? {
            print!("{}", delta.text);
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}
