//! Settings of what requests take until they are received.

use std::time::Duration;

use clap::Args;

use crate::api::RequestBytes;

/// By default, or what four calls with the largest messages take, if that is more.
const IN_FLIGHT: usize = 512 << 20;
const MOST: usize = 1 << 40;
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Args)]
pub(super) struct BodyArgs {
    /// Longest time from a message's first byte to its last, or for a call that takes one message, from the call's begin to
    /// its end; and a second more for each 64 KiB of the message, so that a long one has time on a slow line. Then the call
    /// ends with DEADLINE_EXCEEDED. A stream may wait between two messages for as long as it likes
    #[arg(long, env = "CODE_EXPLAINER_MESSAGE_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "30s")]
    message_timeout: humantime::Duration,

    /// Room for requests that are being received, over all connections, in bytes: a message takes what it says that it will
    /// have before it is read (one that is compressed, twice what it may unpack to besides), and an open call 8 KiB, or
    /// 72 KiB if it takes many messages. A tenant
    /// may have a quarter of it, and where nobody has to say who they are, an address. A message that finds no room waits
    /// for as long as --message-timeout; its call then ends with RESOURCE_EXHAUSTED, as do more calls. By default 512 MiB,
    /// or room for four of the largest messages if that is more. Calls that need no credentials have 64 MiB of their own
    #[arg(long, env = "CODE_EXPLAINER_REQUEST_BYTES_IN_FLIGHT", value_name = "N")]
    request_bytes_in_flight: Option<usize>,
}

impl BodyArgs {
    /// Where messages may have so many bytes.
    pub(super) fn validate(self, message: usize) -> Result<RequestBytes, String> {
        let patience = Duration::from(self.message_timeout);
        if patience.is_zero() || patience > LONGEST {
            return Err(format!(
                "--message-timeout is {}, expected more than 0s, and 24h at most",
                self.message_timeout
            ));
        }
        let least = RequestBytes::of_call(message);
        let in_flight = (self.request_bytes_in_flight).unwrap_or(IN_FLIGHT.max(4 * least));
        if !(least..=MOST).contains(&in_flight) {
            return Err(format!(
                "--request-bytes-in-flight is {in_flight}, expected {least} (for one message of --message-bytes, compressed and unpacked) to {MOST}"
            ));
        }
        Ok(RequestBytes {
            message,
            in_flight,
            patience,
        })
    }
}
