//! The channel from a stream's items to whoever reads their events. It is bounded by how many wait there, and by their
//! bytes: an event can have a whole prompt or answer in it. All channels together have a bound of bytes as well, of which no
//! tenant can have all; where that is reached, a channel still has one event at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use code_explainer_host::share::{Share, Shares, Taken};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;

use crate::explain::{EventKind, ItemEvent};

/// Bytes of the events that wait in a channel. While there are more, nobody has room for another event; so what waits is
/// more than this by one event at most for each thread that makes events.
pub const WAITING_BYTES: usize = 128 << 10;

/// Bytes of the events that wait in all channels, beside one for each.
const ALL_WAITING_BYTES: usize = 64 << 20;

/// What waits in all channels, which tenants share. One that has its share may have one event at a time in each channel.
#[derive(Debug)]
pub struct WaitingEvents(Shares);

impl Default for WaitingEvents {
    fn default() -> Self {
        Self(Shares::new(ALL_WAITING_BYTES))
    }
}

impl WaitingEvents {
    /// A channel of this tenant's, for so many events at once and [`WAITING_BYTES`].
    pub fn channel(&self, tenant: &Arc<str>, events: usize) -> (EventSender, EventReceiver) {
        let (queue, receiver) = mpsc::channel(events);
        let bytes = Arc::new(Semaphore::new(WAITING_BYTES));
        let share = self.0.of(tenant);
        let sender = EventSender {
            queue,
            bytes,
            share,
        };
        (sender, EventReceiver(receiver))
    }
}

/// The end that items have. Clones are of the same channel.
#[derive(Debug, Clone)]
pub struct EventSender {
    queue: mpsc::Sender<Waiting>,
    /// Those that are free.
    bytes: Arc<Semaphore>,
    share: Share,
}

/// The end of who reads.
#[derive(Debug)]
pub struct EventReceiver(mpsc::Receiver<Waiting>);

/// Room for one event; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    queue: mpsc::OwnedPermit<Waiting>,
    /// The first byte of it.
    byte: OwnedSemaphorePermit,
    share: Share,
}

#[derive(Debug)]
struct Waiting {
    event: ItemEvent,
    _held: Held,
}

/// Bytes that an event takes until it is read.
#[derive(Debug)]
struct Held {
    bytes: Arc<Semaphore>,
    count: usize,
    _share: Taken,
}

impl EventSender {
    /// Room for an event, if there is some now.
    pub(super) fn try_reserve(&self) -> Option<Place> {
        let bytes = self
            .bytes
            .clone()
            .try_acquire_many_owned(self.needed())
            .ok()?;
        let queue = self.queue.clone().try_reserve_owned().ok()?;
        Some(self.place(queue, bytes))
    }

    /// Waits for room; `None`: nobody reads any more. Safe to drop.
    pub(super) async fn reserve(&self) -> Option<Place> {
        let queue = self.queue.clone().reserve_owned().await.ok()?;
        let bytes = tokio::select! {
            biased;
            () = self.queue.closed() => return None,
            bytes = self.bytes.clone().acquire_many_owned(self.needed()) => bytes.ok()?,
        };
        Some(self.place(queue, bytes))
    }

    /// Bytes that have to be free here: all of them where the tenant has its part of what waits everywhere, so that nothing
    /// else waits in this channel.
    fn needed(&self) -> u32 {
        if self.share.has_room() {
            1
        } else {
            WAITING_BYTES as u32
        }
    }

    fn place(&self, queue: mpsc::OwnedPermit<Waiting>, mut bytes: OwnedSemaphorePermit) -> Place {
        // The others are free again.
        let byte = bytes.split(1).unwrap_or(bytes);
        let share = self.share.clone();
        Place { queue, byte, share }
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Place {
    /// Puts the event there.
    pub(super) fn send(self, event: ItemEvent) {
        let Self { queue, byte, share } = self;
        let size = size(&event);
        let bytes = byte.semaphore().clone();
        // One that is larger than what is free takes all of that.
        let more = bytes.forget_permits(size.saturating_sub(1));
        byte.forget();
        let held = Held {
            bytes,
            count: 1 + more,
            _share: share.take(size),
        };
        // What it gives back is the sender, which nobody needs.
        let _ = queue.send(Waiting { event, _held: held });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bytes.add_permits(self.count);
    }
}

impl EventReceiver {
    /// The next event; `None` when all senders are gone. Safe to drop.
    pub async fn recv(&mut self) -> Option<ItemEvent> {
        self.0.recv().await.map(|waiting| waiting.event)
    }
}

impl Stream for EventReceiver {
    type Item = ItemEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ItemEvent>> {
        (self.0.poll_recv(context)).map(|waiting| waiting.map(|waiting| waiting.event))
    }
}

/// Bytes of an event in memory, about.
fn size(event: &ItemEvent) -> usize {
    const EACH: usize = size_of::<String>();
    let list = |texts: &[String]| texts.iter().map(|text| EACH + text.len()).sum::<usize>();
    let inside: usize = match &event.kind {
        EventKind::Accepted(accepted) => {
            let texts = [&accepted.language, &accepted.prompt];
            texts.into_iter().flatten().map(String::len).sum()
        }
        EventKind::Delta { text, .. } => text.len(),
        EventKind::Done(done) => {
            let sources = done.sources.iter();
            let sources = sources.map(|source| 3 * EACH + source.id.len() + source.title.len());
            size_of_val(&**done)
                + done.full_text.as_ref().map_or(0, String::len)
                + list(&done.notes)
                + sources.sum::<usize>()
        }
        EventKind::Opened(opened) => size_of_val(&**opened) + list(&opened.unknown),
        EventKind::GoAway(go_away) => size_of_val(&**go_away) + list(&go_away.not_started),
        EventKind::Queued(_)
        | EventKind::Failed(_)
        | EventKind::Credit(_)
        | EventKind::Progress(_) => 0,
    };
    size_of::<Waiting>() + inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(bytes: usize) -> ItemEvent {
        let text = "x".repeat(bytes);
        ItemEvent {
            id: "".into(),
            kind: EventKind::Delta { text, sequence: 0 },
        }
    }

    #[tokio::test]
    async fn large_events_fill_it_as_many_small_ones_do() {
        let all = WaitingEvents::default();
        let (sender, mut receiver) = all.channel(&"a".into(), 64);
        let mut waiting = 0;
        while let Some(place) = sender.try_reserve() {
            place.send(delta(50_000));
            waiting += 1;
        }
        assert_eq!(waiting, 3, "the third makes it full");
        let mut waits = Box::pin(sender.reserve());
        assert!(futures::poll!(&mut waits).is_pending());
        receiver.recv().await.expect("an event");
        waits.await.expect("room again").send(delta(1));
        for _ in 0..3 {
            receiver.recv().await.expect("an event");
        }
        assert_eq!(sender.bytes.available_permits(), WAITING_BYTES);
        for _ in 0..64 {
            sender
                .try_reserve()
                .expect("room for small ones")
                .send(delta(10));
        }
        assert!(sender.try_reserve().is_none(), "by number");
        drop(receiver);
        assert!(sender.reserve().await.is_none());
        assert_eq!(sender.bytes.available_permits(), WAITING_BYTES);
    }

    #[tokio::test]
    async fn one_that_is_larger_than_all_may_come_alone() {
        let (sender, mut receiver) = WaitingEvents::default().channel(&"a".into(), 4);
        sender
            .try_reserve()
            .expect("room")
            .send(delta(10 * WAITING_BYTES));
        assert!(sender.try_reserve().is_none());
        receiver.recv().await.expect("an event");
        let place = sender.try_reserve().expect("room");
        drop(place);
        assert_eq!(sender.bytes.available_permits(), WAITING_BYTES);
    }

    #[tokio::test]
    async fn who_has_much_waiting_has_one_event_a_channel_and_others_have_room() {
        let all = WaitingEvents::default();
        let fill = |tenant: &str| {
            let mut channels = Vec::new();
            loop {
                let (sender, receiver) = all.channel(&tenant.into(), 4);
                let mut waiting = 0;
                while let Some(place) = sender.try_reserve() {
                    place.send(delta(WAITING_BYTES / 2));
                    waiting += 1;
                }
                channels.push((sender, receiver));
                if waiting == 1 {
                    return channels;
                }
            }
        };
        let mut greedy = fill("greedy");
        let waits = all.0.taken();
        assert!(
            (ALL_WAITING_BYTES / 2..ALL_WAITING_BYTES / 2 + 4 * WAITING_BYTES).contains(&waits)
        );
        assert!(
            fill("other").len() > greedy.len() / 3,
            "a quarter of it is for the next"
        );
        let (sender, mut receiver) = greedy.pop().expect("the last");
        let mut more = Box::pin(sender.reserve());
        assert!(futures::poll!(&mut more).is_pending());
        receiver.recv().await.expect("its one event");
        assert!(more.await.is_some(), "who reads goes on");
        drop(greedy);
        let (sender, _receiver) = all.channel(&"greedy".into(), 4);
        for _ in 0..2 {
            sender.try_reserve().expect("room again").send(delta(1));
        }
    }
}
