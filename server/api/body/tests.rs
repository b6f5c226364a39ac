//! Bodies as they arrive, in time that the tests make.

use std::convert::Infallible;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::*;
use crate::api::budget::{Budget, Payer};

type Arriving = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;
type Sender = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

const PATIENCE: Duration = Duration::from_secs(30);
const ROOM: usize = 4 << 20;

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().expect("metrics"))
}

fn payer(budget: usize) -> Share {
    Budget::new(budget, budget, metrics()).share(Payer::Address(None))
}

/// A body whose messages may have a MiB, and who sends it.
fn upload(messages: Messages, share: &Share) -> (Upload<Arriving>, Sender) {
    let (sender, receiver) = mpsc::channel(64);
    let takes = Takes {
        messages,
        bytes: 1 << 20,
        gzip: true,
    };
    let base = share.take_now(DECODER_BYTES).expect("room");
    let paid = Paid::new(share.clone(), base);
    let body = StreamBody::new(ReceiverStream::new(receiver));
    let upload = Upload::new(body, takes, PATIENCE, Some(paid), metrics());
    (upload, sender)
}

fn message(bytes: usize) -> Vec<u8> {
    let mut message = vec![0];
    message.extend((bytes as u32).to_be_bytes());
    message.resize(PREFIX_BYTES + bytes, 7);
    message
}

async fn send(sender: &Sender, bytes: &[u8]) {
    let frame = Frame::data(Bytes::copy_from_slice(bytes));
    sender.send(Ok(frame)).await.expect("it is read");
}

/// What is handed on, to its end.
async fn read(mut upload: Upload<Arriving>) -> Result<Vec<Bytes>, Status> {
    let mut frames = Vec::new();
    while let Some(frame) = upload.frame().await {
        let frame = frame.map_err(Status::from_error)?;
        frames.push(frame.into_data().expect("data"));
    }
    Ok(frames)
}

#[tokio::test]
async fn messages_are_handed_on_as_they_are_and_one_by_one() {
    let sizes = [0, 3, 70_000, 0, 1, 9000];
    let sent: Vec<u8> = sizes.into_iter().flat_map(message).collect();
    for piece in [1, 4, 6, 8191, 1 << 20] {
        let (upload, sender) = upload(Messages::Many, &payer(ROOM));
        let reading = tokio::spawn(read(upload));
        for part in sent.chunks(piece) {
            send(&sender, part).await;
        }
        drop(sender);
        let frames = reading.await.expect("no panic").expect("all is well");
        assert_eq!(frames.concat(), sent, "{piece}");
        // No frame has parts of two messages, or of a length and of what follows it.
        let ends: Vec<usize> = sizes
            .iter()
            .flat_map(|size| [PREFIX_BYTES, *size])
            .scan(0, |end, bytes| {
                *end += bytes;
                Some(*end)
            })
            .collect();
        let mut at = 0;
        for frame in frames {
            let after = at + frame.len();
            assert!(!ends.iter().any(|end| at < *end && *end < after), "{piece}");
            at = after;
        }
    }
}

/// The same compressed.
fn packed(bytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(&message(bytes)[PREFIX_BYTES..])
        .expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut message = vec![1];
    message.extend((packed.len() as u32).to_be_bytes());
    message.extend(packed);
    message
}

#[tokio::test]
async fn compressed_messages_are_handed_on_unpacked_and_give_back_what_they_took() {
    // Room for one, and for what its decoder grows by.
    let share = payer(500_000);
    let (upload, sender) = upload(Messages::Many, &share);
    let reading = tokio::spawn(read(upload));
    let sizes = [0, 3, 900, 70_000].repeat(50);
    for size in &sizes {
        send(&sender, &packed(*size)).await;
    }
    drop(sender);
    let frames = reading.await.expect("no panic").expect("all is well");
    let sent: Vec<u8> = sizes.into_iter().flat_map(message).collect();
    assert_eq!(frames.concat(), sent);
}

#[tokio::test]
async fn a_compressed_message_that_is_cut_off_is_refused() {
    for kept in [PREFIX_BYTES, 12, packed(900).len() - 1] {
        let (upload, sender) = upload(Messages::Many, &payer(ROOM));
        let reading = tokio::spawn(read(upload));
        send(&sender, &packed(900)[..kept]).await;
        drop(sender);
        let refused = reading.await.expect("no panic").expect_err("it is cut off");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_message_has_time_on_a_slow_line() {
    let (upload, sender) = upload(Messages::One, &payer(ROOM));
    let reading = tokio::spawn(read(upload));
    let message = message(1 << 20);
    // 46 s at 64 KiB in 2.7 s: 16 s more than a small one has.
    for part in message.chunks(64 << 10) {
        send(&sender, part).await;
        sleep(Duration::from_millis(2650)).await;
    }
    drop(sender);
    let read = reading.await.expect("no panic").expect("it is there");
    assert_eq!(read.concat().len(), message.len());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stops_ends_and_a_pause_between_two_does_not() {
    let (upload, sender) = upload(Messages::Many, &payer(ROOM));
    let reading = tokio::spawn(read(upload));
    for _ in 0..3 {
        sleep(100 * PATIENCE).await;
        send(&sender, &message(20_000)).await;
    }
    sleep(100 * PATIENCE).await;
    assert!(!reading.is_finished());
    let begun = Instant::now();
    send(&sender, &message(10)[..1]).await;
    let refused = reading.await.expect("no panic").expect_err("it stopped");
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert!(begun.elapsed() >= PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_is_not_read_until_there_is_some() {
    let share = payer(100_000);
    let held = share.take_now(50_000).expect("room");
    let (upload, sender) = upload(Messages::One, &share);
    let reading = tokio::spawn(read(upload));
    let message = message(60_000);
    for part in message.chunks(1000).take(50) {
        send(&sender, part).await;
    }
    sleep(PATIENCE / 2).await;
    // One part is looked at, for the length, and no more.
    assert_eq!(sender.capacity(), 64 - 49);
    drop(held);
    sleep(PATIENCE / 2).await;
    for part in message.chunks(1000).skip(50) {
        send(&sender, part).await;
    }
    drop(sender);
    let read = reading.await.expect("no panic").expect("it is there");
    assert_eq!(read.concat(), message);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_in_time_is_told() {
    let share = payer(100_000);
    let _held = share.take_now(50_000).expect("room");
    let (upload, sender) = upload(Messages::Many, &share);
    let reading = tokio::spawn(read(upload));
    send(&sender, &message(60_000)).await;
    let refused = reading.await.expect("no panic").expect_err("no room");
    assert_eq!(refused.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_decoder_that_is_replaced_gives_its_room_back() {
    let share = payer(100_000);
    let (mut upload, sender) = upload(Messages::Many, &share);
    for _ in 0..3 {
        send(&sender, &message(80_000)).await;
        let mut read = 0;
        while read < PREFIX_BYTES + 80_000 {
            let frame = upload.frame().await.expect("more").expect("all is well");
            read += frame.into_data().expect("data").len();
        }
        assert!(upload.has_grown() && share.take_now(20_000).is_none());
        upload.begins_anew();
        assert!(!upload.has_grown() && share.take_now(90_000).is_some());
    }
}
