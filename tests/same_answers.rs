//! Speculation, shared prefixes, preemption and several engines change how soon an answer comes, and not a byte of it.

use std::collections::HashMap;

use code_explainer::model::Model;
use code_explainer_client::proto::ExplainRequest;

use crate::common::server::{TestServer, config};
use crate::common::smollm;
use crate::common::stream::{Outcome, TestStream, item};

const ITEMS: usize = 12;
const REJECTED: &str = "code_explainer_draft_tokens_total{outcome=\"rejected\"}";
const ACCEPTED: &str = "code_explainer_draft_tokens_total{outcome=\"accepted\"}";

/// The same long function over and over: much to copy, and prompts that begin alike.
fn wanted(i: usize) -> ExplainRequest {
    let body: String = (0..6)
        .map(|n| format!("    total_price += price_of_item({n}) * quantity_of_item({n})\n"))
        .collect();
    let code =
        format!("def compute_total_price(total_price):\n{body}    return total_price + {i}\n");
    ExplainRequest {
        max_new_tokens: 48,
        temperature: if i.is_multiple_of(3) { 0.7 } else { 0.0 },
        seed: Some(i as u64),
        ..item(&i.to_string(), &code)
    }
}

async fn start(flags: &[&str]) -> TestServer {
    let common = ["--precision", "int4", "--cache-size", "0"];
    let mut config = config(&[&common, flags].concat());
    config.model = smollm::model_path();
    let wanted = config.clone();
    let server = TestServer::opening(config, move || Model::open_for(&wanted)).await;
    server.ready().await;
    server
}

async fn answers(server: &TestServer) -> HashMap<String, Outcome> {
    let mut stream = TestStream::open(server).await;
    for i in 0..ITEMS {
        stream.explain(wanted(i)).await;
    }
    stream.collect(ITEMS).await
}

fn cached(outcome: &Outcome) -> u32 {
    let done = outcome.done.as_ref().expect("it was answered");
    done.usage.expect("usage").cached_tokens
}

#[tokio::test]
async fn an_answer_is_the_same_however_it_is_computed() {
    let plain = [
        "--speculation",
        "off",
        "--prefix-cache",
        "off",
        "--batch-size",
        "1",
    ];
    let plain = start(&[&plain[..], &["--kv-cache-tokens", "2048"]].concat()).await;
    let expected = answers(&plain).await;
    assert!(expected.values().all(|outcome| cached(outcome) == 0));
    drop(plain);

    // Room for what the twelve have in common and half of what they have not.
    let always = ["--speculation", "always"];
    let tight = start(&[&always[..], &["--kv-cache-tokens", "512"]].concat()).await;
    let two = start(
        &[
            &always[..],
            &["--device", "cpu:2", "--kv-cache-tokens", "2048"],
        ]
        .concat(),
    )
    .await;
    for (server, name) in [(&tight, "one engine, little memory"), (&two, "two engines")] {
        let answers = answers(server).await;
        for (id, outcome) in &expected {
            assert!(outcome.text.len() > 40, "an explanation: {}", outcome.text);
            assert_eq!(answers[id].text, outcome.text, "{name}, item {id}");
        }
        let shared = answers.values().filter(|outcome| cached(outcome) > 100);
        assert!(
            shared.count() >= ITEMS - 2,
            "{name}: the function is computed once an engine"
        );
        let tried = server
            .metric(ACCEPTED)
            .await
            .zip(server.metric(REJECTED).await);
        assert!(tried.is_some_and(|(a, r)| a + r > 0.0), "{name}: {tried:?}");
    }
    let preempted = tight.metric("code_explainer_preemptions_total").await;
    assert!(preempted > Some(0.0), "{preempted:?}");
}
