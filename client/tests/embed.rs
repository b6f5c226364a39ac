//! Texts become vectors in one call.

use crate::scripted::Server;

#[tokio::test]
async fn vectors_come_in_the_order_of_the_texts() {
    let server = Server::start().await;
    let answer = server.client().embed(["a", "four"]).await.expect("vectors");
    let values: Vec<_> = answer.embeddings.iter().map(|e| e.values[0]).collect();
    assert_eq!(values, [1.0, 4.0]);
    assert_eq!((answer.model.as_str(), answer.dimensions), ("scripted", 1));
}
