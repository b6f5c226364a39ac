//! How gRPC's messages are read and written: as protobuf, by prost, once it is certain that they repeat nothing too often.

use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::api::bounds::{self, Bounded};
use crate::api::unreadable::{Unreadable, problem};
use crate::error::Error;

/// The codec of every service of ours; `build.rs` names it.
pub(crate) struct BoundedCodec<T, U>(PhantomData<(T, U)>);

/// Its way in.
pub(crate) struct BoundedDecoder<U>(PhantomData<U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<U> Default for BoundedDecoder<U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Bounded + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder::default()
    }
}

impl<U: Message + Bounded + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message lies in one piece: it is read when it has come as a whole.
        let message = from.chunk();
        bounds::check(U::SHAPE, message)?;
        let decoded = U::decode(message).map_err(|error| {
            // tonic's own codec says INTERNAL, as if that were the server's fault.
            let mut status: Status = Error::invalid("request", problem(&error)).into();
            if let Some(item) = Unreadable::of::<U>(message, &error) {
                status.set_source(Arc::new(item));
            }
            status
        });
        let length = message.len();
        from.advance(length);
        decoded.map(Some)
    }
}
